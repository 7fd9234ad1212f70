#!/bin/bash
# Tests, times and checks compute/cuda and what the modules of accel do on it, on this machine's NVIDIA GPU: bash dev/gpu/run.sh
# Takes eight to ten minutes; LIMIT=300 bash dev/gpu/run.sh stops after 300 s, and arguments choose parts (see measure.sh). Where Go is not
# installed on the GPU machine, run dev/gpu/build.sh elsewhere and bring the tree, dev/gpu/bin included.
set -e
cd "$(dirname "$0")"
if command -v go > /dev/null; then
  bash build.sh
elif ! [ -e bin/cuda.test ]; then
  echo "there is neither Go to build the tests with nor dev/gpu/bin/cuda.test: run dev/gpu/build.sh where Go is" >&2
  exit 1
fi
exec bash measure.sh "$@"
