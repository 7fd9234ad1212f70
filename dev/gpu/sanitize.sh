#!/bin/bash
# Runs a command under compute-sanitizer: bash dev/gpu/sanitize.sh racecheck|memcheck COMMAND... Exits with 9 where it finds an error. racecheck leaves
# out the kernels of cuBLASLt (nvjet_...): it reports races within them in some runs, which are nobody's here to mend.
[ "$1" = racecheck ] && leave=(--kernel-name-exclude kns=nvjet)
exec compute-sanitizer --tool "$1" "${leave[@]}" --error-exitcode 9 "${@:2}"
