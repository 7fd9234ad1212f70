#!/bin/bash
# Runs every GPU test and timing of compute/cuda on this machine: bash dev/gpu/run.sh
# Where Go is not installed on the GPU machine, run dev/gpu/build.sh elsewhere, bring the tree (with dev/gpu/bin) and run
# dev/gpu/measure.sh there.
set -e
cd "$(dirname "$0")"
bash build.sh
exec bash measure.sh "$@"
