#!/bin/bash
# Make the release files of a larger world model from a checkpoint of train/train.py: dev/release-world.sh STEM DIRECTORY [NAME]
#
# STEM is the checkpoint's (STEM-q8.bin, or STEM-hi.bin and STEM-lo.bin); NAME (world-hd) is the configuration's in train/tw.py and the
# release's. Writes DIRECTORY/NAME with weights.safetensors, config.json, vocab.json and SHA256SUMS, their lengths and sums into
# model/release.go, and then pulls them with a program built so, verifies them and makes two frames; if that fails, all is as it was.
# Weights belong beside the repository, not in it. Needs PyTorch (Debian's python3-torch); a minute. Afterwards: go test ./model
# ./cmd/longtake, and the numbers in the model's page and train/RESULTS.md.
set -euo pipefail
[ $# = 2 ] || [ $# = 3 ] || { sed -n 2p "$0" >&2; exit 2; }
name=${3:-world-hd} stem=$(realpath -m "$1") out=$(realpath -m "$2") table=model/release.go; cd "$(dirname "$0")/.."
[ -s "$stem-q8.bin" ] || [ -s "$stem-hi.bin" ] || { echo "neither $stem-q8.bin nor $stem-hi.bin is there: name what train.py --name wrote" >&2; exit 1; }
case "$out/" in "$PWD"/*) echo "$out is in the repository: name a folder beside it" >&2; exit 1 ;; esac
grep -q "Name: \"$name\"" $table || { echo "$table has no release $name" >&2; exit 1; }

made=$(mktemp -d) done=; cp $table "$made/before"
trap '[ -n "$done" ] || cp "$made/before" $table; rm -rf "$made"' EXIT
"${PYTHON:-/usr/bin/python3}" train/export.py "$stem" "$made/$name" "$name"
for f in config.json vocab.json weights.safetensors; do
  sum=$(cd "$made/$name" && sha256sum $f | tee -a SHA256SUMS | cut -d ' ' -f 1)
  bytes=$(stat -c %s "$made/$name/$f" | sed -E '/^.{5}/{:a; s/^([0-9]+)([0-9]{3})(_|$)/\1_\2\3/; ta}')
  sed -i "/Name: \"$name\"/,/^}/ s|{\"$f\", [0-9_]*, \"[0-9a-f]*\"}|{\"$f\", $bytes, \"$sum\"}|" $table
done

go build -o "$made/longtake" ./cmd/longtake
export LONGTAKE_MODELS="$made/store"
"$made/longtake" models pull "$name" --from "$made"
"$made/longtake" models verify "$name"
"$made/longtake" generate --model "$name" --frames 2 --quiet -o "$made/frames"
mkdir -p "$out" && rm -rf "${out:?}/$name" && cp -r "$made/$name" "$out/$name" && done=1
cat "$out/$name/SHA256SUMS"; echo "$out/$name, and $table says so"
