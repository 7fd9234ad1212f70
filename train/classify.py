"""A small classifier of rooms: wall texture, wall colour, floor and sky of the room a player stands in, from the views of a turn on
the spot. Trained on simulator frames, it judges whether a dream is what its prompt says; its own accuracy is measured first.
"""
import base64

import torch
import torch.nn as nn
import torch.nn.functional as F

from simulator import CIRCLES

GROUPS = dict(texture=8, colour=12, floor=6, sky=6)
VIEWS = 30
# Offsets in struct World (maze.h).
WALL_TEXTURE, WALL_COLOUR, FLOOR, SKY, START = 256, 265, 274, 283, 308


class Classifier(nn.Module):
    """Frames [N,3,64,64] in [-1,1] -> logits [N,32] of all groups."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.c3, self.c4 = nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, 1, 1)
        self.out = nn.Linear(128, sum(GROUPS.values()))

    def forward(self, x):
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = F.relu(conv(x))
        return self.out(torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1))


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


def split(logits):
    return logits.split(list(GROUPS.values()), -1)


def right(logits, want):
    """Which of [n,4] labels the logits [n,32] get right."""
    return torch.stack([part.argmax(-1) == want[:, i] for i, part in enumerate(split(logits))], 1)


def train(sim, dev, steps, batch=48, views=8):
    torch.manual_seed(5)
    net = Classifier().to(dev)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    seed = 900_000_000
    for step in range(steps):
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 50) * min(1, 1.02 - step / steps)
        x, want, _ = turns(sim, seed, batch)
        seed += batch
        pick = torch.rand(batch, VIEWS, device=dev).topk(views, 1).indices
        x = x[torch.arange(batch, device=dev)[:, None], pick].flatten(0, 1)
        x = x + torch.randn_like(x) * 0.05 * torch.rand(len(x), 1, 1, 1, device=dev)
        logits = net(x).view(batch, views, -1).mean(1)
        loss = sum(F.cross_entropy(part, want[:, i]) for i, part in enumerate(split(logits)))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    return net.eval()


@torch.no_grad()
def judge(net, x):
    """Mean logits [n,32] over the views of turns x [n,views,3,64,64]."""
    return torch.stack([net(v).mean(0) for v in x])


def packed(net):
    """All weights as base64 of float32, in the order of parameters()."""
    flat = torch.cat([p.detach().float().flatten().cpu() for p in net.parameters()])
    return base64.b64encode(flat.numpy().tobytes()).decode()
