#!/bin/bash
# Long rollouts of Wan 1.3B with random weights on a GPU machine, which needs no Go: dev/gpu/rollout.sh LONGTAKE SYNTH CLIP [OUT]
# LONGTAKE and SYNTH are programs (go build ./cmd/longtake ./dev/synth), CLIP a safetensors file whose tensor "latents" is
# [frames, 16, rows, columns]. About 4 minutes on one H100; OUT (here) gets a .json and a .html of every part.
set -eu
LONGTAKE=$1 SYNTH=$2 CLIP=$3 OUT=${4:-.}
SET=$(mktemp -d "${TMPDIR:-/dev/shm}/longtake-set.XXXX")
trap 'rm -rf "$SET"' EXIT
"$SYNTH" -o "$SET" -size 1.3b -few-text-layers -tied
roll() { # NAME ARGS
  local name=$1
  shift
  echo "== $name: $*"
  "$LONGTAKE" bench rollout --model "$SET" --vae tiny --prompt 'a cat walks along a beach' --device cuda --quiet --latents "$CLIP" "$@" -o "$OUT/$name.json" -o "$OUT/$name.html"
}
MERGED="tempcache:budget=5f,window=0,threshold=0.85,search=neighbours,radius=1,depth=3 as merged"
FRONTIERS=100,300,500,1000,2000,3000
roll bf16 --frames 3000 --frontiers $FRONTIERS --exact --policies "$MERGED"
roll fp8 --frames 3000 --frontiers $FRONTIERS --exact --precision fp8 --policies "$MERGED"
roll shipped --frames 1000 --frontiers 100,500 --policies 'window'
roll dense --frames 801 --frontiers 200,500,800 --span 36 --fill --policies 'full'
