#!/bin/bash
# Builds, checks and times the attention kernels on a machine with an H100: bash dev/gpu/attend/run.sh
# Arguments go to bench.py (see --help). Results go to $OUT, or here when it is unset.
cd "$(dirname "$0")" || exit
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec timeout -k 5 "${LIMIT:-240}" python3 bench.py "$@"
