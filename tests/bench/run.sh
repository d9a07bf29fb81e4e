#!/usr/bin/env bash
# `make bench`: the figures that README.md quotes. `make bench ONLY=resize` takes only those of that name.
#
# What the host is held against goes into .venv: Pillow for resize, boto3 for S3 and SQS.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/venv.sh pillow==13.0.0 boto3==1.44.5

# The photograph.
cargo build --package demo-inputs
cargo bench --bench bench -- "${1:-}"
