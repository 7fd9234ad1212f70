"""A small classifier of rooms: wall texture, wall colour, floor and sky of the room a player stands in, from the views of a turn on
the spot. Trained on simulator frames, it judges whether a dream is what its prompt says; its own accuracy is measured first.

    python3 classify.py OUT.bin --seconds 100
"""
import argparse
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import checkpoint
from simulator import CIRCLES, Sim

GROUPS = dict(texture=8, colour=12, floor=6, sky=6)
SCORES = sum(GROUPS.values())
VIEWS = 30
# Offsets in struct World (maze.h).
WALL_TEXTURE, WALL_COLOUR, FLOOR, SKY, START = 256, 265, 274, 283, 308


class Classifier(nn.Module):
    """Frames [N,3,64,64] in [-1,1] -> scores [N,32] of all groups, and for each group how much the view says of it [N,4]."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 2, 1)
        self.c3, self.c4 = nn.Conv2d(64, 96, 3, 2, 1), nn.Conv2d(96, 96, 3, 1, 1)
        self.out = nn.Linear(192, SCORES + len(GROUPS))

    def forward(self, x):
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = F.relu(conv(x))
        y = self.out(torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1))
        return y[:, :SCORES], y[:, SCORES:]


def together(scores, says):
    """Scores [n,views,32] and weights [n,views,4] of views of one place -> [n,32]."""
    w = says.softmax(1)
    return torch.cat([(part * w[..., i:i + 1]).sum(1) for i, part in enumerate(split(scores))], -1)


def labels(w):
    """Worlds [n,bytes] -> the start rooms' labels [n,4]."""
    room = w[:, START].long()[:, None]
    def of_room(at):
        return w[:, at:at + 9].long().gather(1, room)[:, 0]
    return torch.stack((of_room(WALL_TEXTURE), of_room(WALL_COLOUR), of_room(FLOOR), w[:, SKY].long()), 1)


def turns(sim, seed, n):
    """n turns on the spot: frames [n,30,3,64,64] in [-1,1], labels [n,4], and the clips."""
    vid, tok, act, head, w, _ = sim.clips(seed, n, VIEWS, kind=CIRCLES)
    return vid.permute(0, 1, 4, 2, 3).float() / 127.5 - 1, labels(w), (tok, act, head)


def split(scores):
    return scores.split(list(GROUPS.values()), -1)


def right(scores, want):
    """Which of [n,4] labels the scores [n,32] get right."""
    return torch.stack([part.argmax(-1) == want[:, i] for i, part in enumerate(split(scores))], 1)


def train(sim, dev, steps, seconds=1e9, batch=64, views=10):
    torch.manual_seed(5)
    net = Classifier().to(dev)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    seed, start = 900_000_000, time.time()
    for step in range(steps):
        done = max(step / steps, (time.time() - start) / seconds)
        if done >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 50) * max(0.01, min(1, 1.5 * (1 - done)))
        x, want, _ = turns(sim, seed, batch)
        seed += batch
        pick = torch.rand(batch, VIEWS, device=dev).topk(views, 1).indices
        x = x[torch.arange(batch, device=dev)[:, None], pick].flatten(0, 1)
        x = x + torch.randn_like(x) * 0.05 * torch.rand(len(x), 1, 1, 1, device=dev)
        scores, says = net(x)
        scores = together(scores.view(batch, views, -1), says.view(batch, views, -1))
        loss = sum(F.cross_entropy(part, want[:, i]) for i, part in enumerate(split(scores)))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    print(f"judge: {step + 1} steps, loss {loss.item():.4f}", flush=True)
    return net.eval()


@torch.no_grad()
def judge(net, x):
    """Scores [n,32] of turns x [n,views,3,64,64]."""
    scores, says = zip(*(net(v) for v in x))
    return together(torch.stack(scores), torch.stack(says))


def save(net, path):
    """bf16, rounded to nearest, in the order of parameters()."""
    flat = torch.cat([p.detach().float().flatten().cpu() for p in net.parameters()]).bfloat16()
    checkpoint.write(path, flat.view(torch.int16).numpy().tobytes())


def load(path, dev):
    net, at = Classifier(), 0
    raw = np.fromfile(path, np.uint16).astype(np.uint32) << 16
    flat = torch.from_numpy(raw.view(np.float32).copy())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(flat[at:at + p.numel()].view(p.shape))
            at += p.numel()
    assert at == len(flat), "the judge's file is of another size"
    return net.to(dev).eval()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--seconds", type=float, default=100)
    ap.add_argument("--device", default="cuda")
    a = ap.parse_args()
    sim = Sim(a.device)
    save(train(sim, a.device, 10 ** 9, a.seconds), a.out)
    net = load(a.out, a.device)
    with torch.no_grad():
        r = torch.cat([right(judge(net, x), want) for x, want, _ in (turns(sim, 20000 + 256 * i, 256) for i in range(8))])
    print("judge on held-out turns:", len(r), {k: round(r[:, i].float().mean().item(), 4) for i, k in enumerate(GROUPS)},
          "all", round(r.all(1).float().mean().item(), 4), flush=True)


if __name__ == "__main__":
    main()
