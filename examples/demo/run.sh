#!/usr/bin/env bash
# `make demo`: makes some inputs, runs `gristmill dev demo --until-idle` over them, and shows the results.
#
# The folder demo/ is left as it is, and nothing in it is removed: run it again and the same inputs are
# uploaded once more. Ends with 0 although one of them, a broken photograph, is rejected; with 1 when
# anything else went otherwise than it should.
set -euo pipefail
cd "$(dirname "$0")/../.."

# One build for both, so that cargo works on all cores to the end.
cargo build --package gristmill --package demo-inputs
programs=${CARGO_TARGET_DIR:-target}/debug
uploads=demo/uploads
processed=demo/processed

# The files under a folder, with their sizes in bytes.
list() {
    (
        cd "$1"
        find . -type f | sort | while read -r file; do
            printf '%10d  %s\n' "$(wc -c <"$file")" "${file#./}"
        done
    )
}

"$programs/demo-inputs" "$uploads"
printf '\nThese files have landed in %s:\n\n' "$uploads"
list "$uploads"
printf '\n$ gristmill dev demo --until-idle\n\n'

# 1 is right: something was rejected.
status=0
"$programs/gristmill" dev demo --until-idle || status=$?
if [ "$status" != 1 ]; then
    printf '\ndemo: gristmill ended with %s, not with 1 for one rejected object\n' "$status" >&2
    exit 1
fi

printf '\nThe results and the originals are in %s:\n\n' "$processed"
list "$processed"

# What can be processed has left uploads/; what cannot is still there.
wrong=0
for name in photos/harvest.jpg photos/badge.png tables/deliveries.csv tables/sensors.ndjson 'notes for the miller.txt'; do
    if [ -e "$uploads/$name" ] || [ ! -e "$processed/$name" ]; then
        printf '\ndemo: %s was not processed\n' "$name" >&2
        wrong=1
    fi
done
if [ ! -e "$uploads/photos/broken.jpg" ]; then
    printf '\ndemo: photos/broken.jpg was not rejected\n' >&2
    wrong=1
fi
[ "$wrong" = 0 ] || exit 1

cat <<END

The broken photograph is still in $uploads/photos, for somebody to look at. How to go on:

  $programs/gristmill dev demo
      Keeps watching. In another terminal drop a file into $uploads and see it processed.
  mkdir demo/plugins && cp target/plugins/*.wasm demo/plugins/
      From the next start on plugins are taken from there. Copy another one over one of them while it runs,
      and the next object goes through the new one.
  $programs/gristmill --help
      Everything else.
END
