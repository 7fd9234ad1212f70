"""Make a checkpoint a model that longtake opens: weights.safetensors (bf16, rounded to nearest), config.json and vocab.json.

    python3 train/export.py CHECKPOINT_STEM DIRECTORY

longtake generate --model DIRECTORY/weights.safetensors plays it. The configuration is that of model/tinyworld with the actions
and wavelengths of tw.PLACED.
"""
import json
import os
import shutil
import sys

import torch

import checkpoint
from tw import PLACED, TinyWorld, write_safetensors

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def configuration():
    with open(os.path.join(ROOT, "model", "tinyworld", "config.json")) as f:
        c = json.load(f)
    c["actions"] = c["actions"][:7] + ["strafe_left", "strafe_right"]
    c.update(place_waves=PLACED["place_waves"], view_tan=0.7265)
    return c


def main():
    stem, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    m = TinyWorld(PLACED)
    checkpoint.load(list(m.parameters()), stem)
    write_safetensors({k: v.detach().to(torch.bfloat16) for k, v in m.named_parameters()}, os.path.join(out, "weights.safetensors"))
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(configuration(), f, indent=1)
        f.write("\n")
    shutil.copy(os.path.join(ROOT, "model", "tinyworld", "vocab.json"), out)


if __name__ == "__main__":
    main()
