#!/bin/sh
# A compiler with a bug.
cat >/dev/null
echo "thread 'main' panicked at src/compile.rs:7:9:" >&2
echo "index out of bounds" >&2
exit 101
