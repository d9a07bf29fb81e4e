#!/bin/sh
# A compiler that never answers, and neither does what it has started.
sleep 987654 &
exec sleep 987655
