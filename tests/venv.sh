#!/usr/bin/env bash
# Puts Python programs that tests, benchmarks and examples use into .venv. Says nothing and needs no network
# when they are there: `tests/venv.sh NAME==VERSION ...`.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python

# Of all that is pinned, is anything missing or of another version?
are_there() {
    "$python" - "$@" 2>/dev/null <<'EOF'
import sys
from importlib.metadata import version
sys.exit(any(version(name) != wanted for name, wanted in (pin.split("==") for pin in sys.argv[1:])))
EOF
}

if are_there "$@"; then
    exit
fi
if [ ! -x "$python" ] && ! python3 -m venv .venv >/dev/null 2>&1; then
    # Debian packs it separately, and leaves half an environment behind.
    rm -rf .venv
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "venv: python3 cannot make a virtual environment: install python3-venv" >&2
        exit 1
    fi
    echo "venv: installing python3-venv" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >/dev/null
    apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
    python3 -m venv .venv
fi
# pip takes minutes to find versions that go together.
"$python" -m pip install --quiet --disable-pip-version-check uv
"$python" -m uv pip install --quiet --python "$python" "$@"
