"""Make a checkpoint a model that longtake opens: weights.safetensors (bf16, rounded to nearest), config.json and vocab.json.

    python3 train/export.py CHECKPOINT_STEM DIRECTORY [CONFIGURATION]

longtake generate --model DIRECTORY plays it. The configuration, tinyworld unless another of tw.CONFIGS is named, is written as
model/tinyworld has it.
"""
import json
import os
import shutil
import sys

import torch

import checkpoint
from tw import CONFIGS, TinyWorld, grid, image, write_safetensors

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def configuration(c):
    """config.json of a configuration of tw.py."""
    with open(os.path.join(ROOT, "model", "tinyworld", "config.json")) as f:
        out = json.load(f)
    rows, columns = grid(c)
    out["actions"] = out["actions"][:7] + ["strafe_left", "strafe_right"]
    out.update(place_waves=c["place_waves"], view_tan=0.7265, image=[*image(c), 3], tokens_per_frame=rows * columns,
               **{k: c[k] for k in ("d", "layers", "heads", "ffn", "patch")})
    if "rope_unit" in c:
        out["rope"]["unit_hw"], out["trained_frames"] = c["rope_unit"], c["trained_frames"]
    return out


def main():
    stem, out, name = (*sys.argv[1:], "tinyworld")[:3]
    os.makedirs(out, exist_ok=True)
    c = CONFIGS[name]
    m = TinyWorld(c)
    checkpoint.load(list(m.parameters()), stem)
    write_safetensors({k: v.detach().to(torch.bfloat16) for k, v in m.named_parameters()}, os.path.join(out, "weights.safetensors"))
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(configuration(c), f, indent=1)
        f.write("\n")
    shutil.copy(os.path.join(ROOT, "model", "tinyworld", "vocab.json"), out)


if __name__ == "__main__":
    main()
