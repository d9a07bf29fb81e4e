#!/bin/sh
# A compiler that the system ends, as it does when memory runs out.
kill -9 $$
