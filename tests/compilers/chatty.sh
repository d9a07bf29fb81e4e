#!/bin/sh
# A compiler that says more than anybody wants to know, in colour.
cat >/dev/null
i=0
while [ $i -lt 100 ]; do
    printf "\033[31mword %s and words and words and words and words and words and words and words and words\n" "$i" >&2
    i=$((i + 1))
done
exit 1
