#!/usr/bin/env bash
# `make bench`: the figures that README.md quotes. `make bench ONLY=resize` takes only those of that name.
#
# Pillow, which resize is held against, goes into .venv.
set -euo pipefail
cd "$(dirname "$0")/../.."

pillow=13.0.0
python=.venv/bin/python
if ! "$python" -c "import PIL; assert PIL.__version__ == '$pillow'" 2>/dev/null; then
    if ! python3 -m venv .venv 2>/dev/null; then
        # Debian packs it separately.
        echo "bench: installing python3-venv" >&2
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
        python3 -m venv .venv
    fi
    "$python" -m pip install --quiet --disable-pip-version-check "pillow==$pillow"
fi

# The photograph.
cargo build --package demo-inputs
cargo bench --bench bench -- "${1:-}"
