#!/usr/bin/env bash
# What plays AWS in tests and in the demo: a server with S3, SQS, SNS and EventBridge, of one process.
set -euo pipefail
exec "$(dirname "$0")/venv.sh" ministack==1.5.33
