#!/usr/bin/python3
"""Golden numbers of two small world models that are told their place (random weights), from the PyTorch code in train/.

    /usr/bin/python3 dev/golden/placed.py

Writes placed and finer in model/testdata/golden: weights.safetensors (bf16) with config.json and vocab.json beside it, as OpenWorld reads
them, and rollout.safetensors. finer has 2 x 3 patches that lie half as far apart. CPU, one thread, float32.
"""
import json
import os
import shutil
import sys

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "train"), os.path.join(ROOT, "dev", "golden")]
sys.dont_write_bytecode = True
import tinyworld  # noqa: E402
from batch import Batch  # noqa: E402
from simulator import STROLL, Sim  # noqa: E402
from tw import HD, PLACED, TinyWorld, grid, image, load, patchify, write_safetensors  # noqa: E402

SMALL = dict(d=64, layers=2, heads=1, ffn=96, text_d=16, text_layers=1, text_heads=1, freq_dim=32)
CASES = dict(placed=dict(PLACED, **SMALL), finer=dict(HD, **SMALL, size=[16, 24]))
SIM_SEED, FRAMES, GIVEN, STEPS = 71, 9, 2, 2


def weights(c):
    """Random numbers everywhere, also where training begins with zeros, rounded to bf16."""
    torch.manual_seed(3)
    m = TinyWorld(c)
    with torch.no_grad():
        for p in m.parameters():
            if p.ndim > 1 and p.abs().max() == 0 or p.ndim == 1 and p.std() == 0:
                p.add_(torch.randn_like(p) * 0.1)
        m.place_in.copy_(torch.randn_like(m.place_in) * 0.2)
    return {k: v.detach().bfloat16() for k, v in m.named_parameters()}


def config(numbers):
    with open(os.path.join(ROOT, "model", "tinyworld", "config.json")) as f:
        c = json.load(f)
    out = {k: c[k] for k in ("format", "image", "patch", "headings", "step_cells", "rope", "norm", "time_embed", "text", "sampler")}
    out.update(d=64, layers=2, heads=1, ffn=96, actions=c["actions"][:7] + ["strafe_left", "strafe_right"],
               place_waves=numbers["place_waves"], view_tan=0.7265)
    out["time_embed"]["freq_dim"] = 32
    out["text"].update(d=16, layers=1, heads=1, ffn=64)
    out["sampler"].update(steps=STEPS, shift=1.0)
    if "rope_unit" in numbers:
        out["image"], out["rope"]["unit_hw"] = [*image(numbers), 3], numbers["rope_unit"]
    return out


@torch.no_grad()
def roll(m, clip, eps, blocked):
    vid, tok, act, head = clip[:4]
    x, r, out, places = patchify(vid), Batch(m, tok, FRAMES, "full", blocked), [], []
    for i in range(FRAMES):
        r.look(act[:, i], head[:, i])
        made = x[:, i] if i < GIVEN else r.sample(eps[i - GIVEN][None], STEPS, 1.0)
        r.keep(made, head[:, i], act[:, i])
        out.append(made[0])
        places.append(r.place[0])
    return torch.stack(out[GIVEN:]), torch.stack(places)


def case(name, c):
    out = os.path.join(ROOT, "model", "testdata", "golden", name)
    os.makedirs(out, exist_ok=True)
    write_safetensors(weights(c), os.path.join(out, "weights.safetensors"))
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config(c), f, indent=1)
        f.write("\n")
    shutil.copy(os.path.join(ROOT, "model", "tinyworld", "vocab.json"), out)
    m = TinyWorld(c)
    m.load_state_dict(load(os.path.join(out, "weights.safetensors")))
    clip = Sim("cpu").clips(SIM_SEED, 1, FRAMES, size=image(c), kind=STROLL)
    clip[2][0, 1:] = torch.tensor([1, 7, 3, 1, 8, 5, 2, 6])  # every kind of step; the true frames need not fit
    clip = list(clip)
    turn = torch.tensor([0, 0, 0, -1, 1, -1, 1, 0, 0])[clip[2]]
    clip[3] = (clip[3][:, :1] + turn.cumsum(1)) % 30
    eps = torch.randn(FRAMES - GIVEN, m.tokens, m.values, generator=torch.Generator().manual_seed(4))
    free, places = roll(m.eval(), clip, eps, 0.0)
    stopped, stay = roll(m, clip, eps, 100.0)
    tinyworld.OUT = out
    files = {"rollout.safetensors": tinyworld.write("rollout.safetensors", dict(
        tokens=clip[1][0], actions=clip[2][0], headings=clip[3][0], start_frames=clip[0][0, :GIVEN].int(), eps=eps, free=free, places=places,
        stopped=stopped, stay=stay))}
    with open(os.path.join(out, "manifest.json"), "w") as f:
        json.dump(dict(script="dev/golden/placed.py", torch=torch.__version__, notes=dict(
            rollout="2 start frames, then 7 made in 2 steps of shift 1 under a full cache; places in cells from the first frame; in stopped and "
                    "stay every step counts as failed after the frame was made"), files=files), f, indent=1)
        f.write("\n")
    print(name, grid(c), free.abs().mean(), (free - stopped).abs().mean(), places[-1], stay[-1])


def main():
    torch.set_num_threads(1)
    for name, c in CASES.items():
        case(name, c)


if __name__ == "__main__":
    main()
