#!/bin/bash
# Make a model that train/export.py wrote the embedded one: dev/ship-weights.sh FOLDER
#
# Copies weights and configuration to model/tinyworld and writes everything that belongs to them anew: hashes and sizes in texts and
# tests, PyTorch's reference numbers, frame hashes, TempCache's needs, AnnSA's profile. Needs Debian's python3-torch; ten minutes on
# two cores. Read the difference before committing it, and run all tests.
set -euo pipefail
[ $# = 1 ] || { sed -n 2p "$0" >&2; exit 2; }
from=$(cd "$1" && pwd); cd "$(dirname "$0")/.."
for f in weights.safetensors config.json vocab.json; do [ -s "$from/$f" ] || { echo "$from/$f is missing: write it with train/export.py" >&2; exit 1; }; done
python=${PYTHON:-/usr/bin/python3}
go run ./cmd/longtake generate --model "$from/weights.safetensors" --frames 2 --quiet -o "$(mktemp -d)/frames"

cp "$from/weights.safetensors" model/tinyworld/tinyworld.safetensors
cp "$from/config.json" "$from/vocab.json" model/tinyworld/
$python dev/golden/facts.py # hashes and sizes, in texts and tests
$python dev/golden/tinyworld.py > /dev/null
$python dev/golden/placed.py > /dev/null
go test ./cmd/longtake -count=1 -run EveryKernelClassMakesItsGoldenFrames -update
needs=$(LONGTAKE_NEEDS=1 LONGTAKE_CLIPS=3 LONGTAKE_SEED=7000 LONGTAKE_MEASURE='default, threshold 0.9' go test ./accel/tempcache -count=1 -run MeasureLookBack -v | grep '^\[' | head -3 |
  tr -d '[]' | awk '{for (i = 1; i <= NF; i++) s[i] += $i} END {for (i = 1; i <= 6; i++) printf("%s%d", (i > 1 ? ", " : ""), s[i] / NR + .5)}')
[ "$(tr -cd , <<< "$needs" | wc -c)" = 5 ] || { echo "needs measured as '$needs': want six" >&2; exit 1; }
sed -i "s/^\(var tinyNeeds = \[\]float64{\)[^}]*/\1$needs/" model/tinyworld.go
heads=$(LONGTAKE_NEEDS=1 go test ./accel/tempcache -count=1 -run MeasureNeeds -v | grep -P '^\t[\d., ]+$')
[ "$(tr -cd , <<< "$heads" | wc -c)" = 24 ] || { echo "needs of heads measured as '$heads': want 24" >&2; exit 1; }
NEEDS=$heads perl -0pi -e 's/(var tinyHeadNeeds = \[\]float64\{\n).*?\n\}/$1$ENV{NEEDS}\n}/s' model/tinyworld.go
(cd accel/annsa && go test . -count=1 -run CalibrateEmb -profile profiles/tinyworld.json)
echo "shipped; needs $needs. Now: go test ./..., model/tinyworld/README.md's provenance, train/RESULTS.md"
