#!/bin/bash
# Long rollouts of Wan 1.3B with random weights on a GPU machine, which needs no Go: dev/gpu/rollout.sh LONGTAKE SYNTH CLIP [OUT]
# LONGTAKE and SYNTH are programs (go build ./cmd/longtake ./dev/synth), CLIP a safetensors file whose tensor "latents" is
# [frames, 16, rows, columns]. About 6 minutes on one H100, with PyTorch for the baseline; OUT (here) gets a .json and a .html of every part.
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
  "$LONGTAKE" bench rollout "${MODEL[@]}" --prompt "$PROMPT" --latents "$CLIP" "$@" -o "$OUT/$name.json" -o "$OUT/$name.html"
}
MERGED=window=0,threshold=0.85,search=neighbours,radius=1,depth=3,floor=0.5,forget=rarest,rest=true,spread=2
POLICY="tempcache:budget=4f,$MERGED as merged"
FRONTIERS=100,300,500,1000,2000,3000
# Every chunk whole: what a viewer gets. --fill writes the same history by clean passes, for what is too slow otherwise.
roll fp8 --frames 3000 --frontiers $FRONTIERS --launches --precision fp8 --policies "$POLICY"
roll bf16 --frames 3000 --frontiers $FRONTIERS --launches --policies "$POLICY"
roll exact --fill --frames 3000 --frontiers 300,1000,3000 --exact --policies "$POLICY"
roll dense --fill --frames 801 --frontiers 800 --span 24 --policies 'full'
roll shipped --fill --frames 300 --frontiers 300 --policies 'window'
# The public network in PyTorch with cuDNN, end to end: its window, and all of 800 frames (62 GB). By the layer: dev/gpu/history.py.
python3 "$(dirname "$0")/public.py" 21 204
# What fp8 changes, in a forward and in a video.
for p in bf16 fp8; do
  "$LONGTAKE" forward "${MODEL[@]}" --precision $p --cached 3,12,21 "$([ $p = bf16 ] && echo --save || echo --against)" "$SET/prediction.f32"
  "$LONGTAKE" generate "${MODEL[@]}" --precision $p --prompt "$PROMPT" --frames 121 -o "$SET/$p.y4m"
done
python3 "$(dirname "$0")/psnr.py" "$SET/bf16.y4m" "$SET/fp8.y4m"
