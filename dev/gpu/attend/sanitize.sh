#!/bin/bash
# Runs compute-sanitizer's tools over four kernel variants and multi-stage shapes (a minute and a half on an H100 machine).
cd "$(dirname "$0")" || exit
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
for tool in memcheck synccheck racecheck; do
	OUT=/tmp timeout -k 5 90 compute-sanitizer --tool $tool --kernel-name kns=attend \
		python3 bench.py --mode small --no-time --cases 4:7 2>&1 | tail -n 3 | sed "s/^/$tool: /"
done
