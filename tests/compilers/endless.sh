#!/bin/sh
# A compiler whose code has no end.
cat >/dev/null
exec cat /dev/zero
