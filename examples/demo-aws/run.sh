#!/usr/bin/env bash
# `make demo-aws`: two hosts work on one bucket and one queue, one of them is killed halfway, and an auditor
# says whether anything was lost or done twice.
#
# What plays AWS is a server on this machine; nothing leaves it. Logs and inputs are in target/demo-aws. Ends
# with 0 when the auditor finds nothing wrong.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/stand-in.sh
tests/venv.sh boto3==1.44.5
cargo build --package gristmill --package demo-inputs

python=.venv/bin/python
programs=${CARGO_TARGET_DIR:-target}/debug
folder=target/demo-aws
small=200
# Seconds that everything may take together, on a slow machine.
patience=300

rm -rf "$folder"
mkdir -p "$folder"

say() { printf '%s\n' "$*"; }
fail() {
    printf 'demo-aws: %s; the logs are in %s\n' "$*" "$folder" >&2
    exit 1
}

hosts=()
# Whatever happens, nothing is left behind. The server ends by itself, with its standard input.
# shellcheck disable=SC2317,SC2329 # The trap calls it.
end() {
    for host in "${hosts[@]}"; do
        kill -9 "$host" 2>/dev/null || true
    done
}
trap end EXIT

# Waits until a condition holds: `until_true WHAT COMMAND ...`.
until_true() {
    local what=$1
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$patience" ] || fail "$what did not happen within $patience s"
        sleep 0.1
    done
}

coproc AWS { exec "$python" tests/support/ministack.py 2>"$folder/aws.log"; }
read -r -t 60 port <&"${AWS[0]}" || fail "the server that plays AWS did not start"

export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo GRISTMILL_PATH_STYLE=true
export BUCKET=mill SRC_PREFIX=uploads/ DST_PREFIX=processed/
# Of nobody's own set-up may anything be left: not of AWS's tools, nor of gristmill.toml.
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL_SQS
# What the killed host had in work comes back after this, instead of after half a minute.
export GRISTMILL_VISIBILITY_TIMEOUT=5s

answers() { "$python" -c "import urllib.request as u; u.urlopen('$AWS_ENDPOINT_URL/_ministack/ready', timeout=5)" 2>/dev/null; }
until_true "an answer of the server that plays AWS" answers
read -r QUEUE_URL DLQ_URL < <("$python" examples/demo-aws/scene.py make)
export QUEUE_URL DLQ_URL

say "A bucket tells an SNS topic of what lands below uploads/, the topic tells a queue, and two hosts work on it."
: >"$folder/gristmill.toml"
for number in 1 2; do
    "$programs/gristmill" --log info run --json -c "$folder/gristmill.toml" \
        >"$folder/host-$number.jsonl" 2>"$folder/host-$number.log" &
    hosts+=($!)
done

"$programs/demo-inputs" "$folder/inputs"
total=$(($(find "$folder/inputs" -type f | wc -l) + small))
"$python" examples/demo-aws/scene.py upload "$folder/inputs" "$folder/manifest.json" "$small" &
uploading=$!

finished() { cat "$folder"/host-*.jsonl | wc -l; }
runs() { kill -0 "$1" 2>/dev/null; }
half_done() {
    runs "${hosts[0]}" || fail "a host ended by itself"
    [ "$(finished)" -ge $((total / 2)) ]
}
until_true "half of the work" half_done
kill -9 "${hosts[0]}"
wait "${hosts[0]}" 2>/dev/null || true
say "After $(finished) of $total objects one of the hosts was killed in the midst of its work."
wait "$uploading" || fail "cannot upload"

# Three times in a row, since the numbers of SQS are approximate.
quiet=0
drained() {
    runs "${hosts[1]}" || fail "the other host ended by itself"
    if [ "$("$python" examples/demo-aws/scene.py left)" = 0 ]; then quiet=$((quiet + 1)); else quiet=0; fi
    [ "$quiet" -ge 3 ]
}
until_true "an empty queue" drained
kill "${hosts[1]}"
timeout 60 tail --pid="${hosts[1]}" -f /dev/null || fail "the other host did not end when it was told to"
# 1 is right too: one of the photographs is broken, and this host may be the one that rejected it.
status=0
wait "${hosts[1]}" || status=$?
[ "$status" -le 1 ] || fail "the other host ended with $status"
say "The other host did the rest, and ended when it was told to. What an auditor finds:"
say
"$python" examples/demo-aws/audit.py "$folder/manifest.json"
