#!/bin/bash
# Long rollouts of Wan 1.3B with random weights on a GPU machine, which needs no Go: dev/gpu/rollout.sh LONGTAKE SYNTH CLIP [OUT]
# LONGTAKE and SYNTH are programs (go build ./cmd/longtake ./dev/synth), CLIP a safetensors file whose tensor "latents" is
# [frames, 16, rows, columns]. About 5 minutes on one H100, with PyTorch for the baseline; OUT (here) gets a .json and a .html of every part.
set -eu
LONGTAKE=$1 SYNTH=$2 CLIP=$3 OUT=${4:-.}
SET=$(mktemp -d "${TMPDIR:-/dev/shm}/longtake-set.XXXX")
trap 'rm -rf "$SET"' EXIT
"$SYNTH" -o "$SET" -size 1.3b -few-text-layers -tied
MODEL=(--model "$SET" --vae tiny --device cuda --quiet)
PROMPT='a cat walks along a beach'
roll() { # NAME ARGS
  local name=$1
  shift
  echo "== $name: $*"
  "$LONGTAKE" bench rollout "${MODEL[@]}" --prompt "$PROMPT" --latents "$CLIP" --fill "$@" -o "$OUT/$name.json" -o "$OUT/$name.html"
}
MERGED=window=0,threshold=0.85,search=neighbours,radius=1,depth=3,floor=0.5,forget=rarest
POLICIES="tempcache:budget=5f,$MERGED as merged5; tempcache:budget=4f,$MERGED as merged4"
FRONTIERS=100,300,500,1000,2000,3000
roll fp8 --frames 3000 --frontiers $FRONTIERS --launches --precision fp8 --policies "$POLICIES"
roll bf16 --frames 3000 --frontiers $FRONTIERS --launches --policies "$POLICIES"
roll exact --frames 3000 --frontiers 300,1000,3000 --exact --policies "$POLICIES"
roll dense --frames 801 --frontiers 800 --span 24 --policies 'full'
roll shipped --frames 300 --frontiers 300 --policies 'window'
python3 "$(dirname "$0")/public.py" 21 204
# What fp8 changes, in a forward and in a video.
for p in bf16 fp8; do
  "$LONGTAKE" forward "${MODEL[@]}" --precision $p --cached 3,12,21 "$([ $p = bf16 ] && echo --save || echo --against)" "$SET/prediction.f32"
  "$LONGTAKE" generate "${MODEL[@]}" --precision $p --prompt "$PROMPT" --frames 121 -o "$SET/$p.y4m"
done
python3 "$(dirname "$0")/psnr.py" "$SET/bf16.y4m" "$SET/fp8.y4m"
