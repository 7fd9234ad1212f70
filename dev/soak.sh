#!/bin/bash
# Measures a server as a process of its own, on an otherwise idle machine: bash dev/soak.sh [LENGTH [FPS]], by default 30m at 20.
# What is promised is a condition: rate, p99 of intervals, late frames, delay of keys, and a slope of resident memory below 1 MiB/h.
set -euo pipefail
cd "$(dirname "$0")/.."
length=${1:-30m} fps=${2:-20}
test=$(mktemp)
trap 'rm -f "$test"' EXIT
CGO_ENABLED=0 go test -c -o "$test" ./cmd/longtake
cd cmd/longtake
export LONGTAKE_STRICT=1
LONGTAKE_SOAK=1s "$test" -test.run '^TestFirstPictureAfterStart$' -test.v
LONGTAKE_SOAK=36s "$test" -test.run '^(TestTwentyViewers|TestTheMapsCost)$' -test.v
LONGTAKE_SOAK=30s "$test" -test.run '^TestOverload$' -test.v
LONGTAKE_REPLAY=1000 "$test" -test.run '^TestASessionOfTheEmbeddedModelReplaysHashForHash$' -test.v -test.timeout 30m
LONGTAKE_SOAK=$length LONGTAKE_SOAK_FPS=$fps "$test" -test.run '^TestSoak$' -test.v -test.timeout 25h
