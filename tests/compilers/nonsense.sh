#!/bin/sh
# A compiler whose code is none.
cat >/dev/null
echo "this is no code"
