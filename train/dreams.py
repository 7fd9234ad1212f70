"""Sharper dreams: a loss on what the model makes after its own frames, where no truth is known.

From one true frame the averaged weights dream strolls with the sampler's own steps (batch.py), a player turning away where a wall
stops it. In training steps these dreams are contexts and starting points: each frame is noised to .5, goes one step of the sampler
without gradient, and the next estimate must look, over the batch, like true walks of players who know as little of the walls.
"Look like" is a distance of distributions: filters of random numbers that see no flat colour, the answers of made and of true frames
sorted, and the mean squared difference of equals in rank (sliced Wasserstein distance of patches). Answers are compared as
asinh(x / half their true mean magnitude), or the few strongest edges would decide. Means over 8x8 pixels stay those of the dream.
"""
import torch
import torch.nn.functional as F

import data
from batch import rollout
from simulator import STROLL
from tw import TinyWorld, patchify, unpatchify

# Filters: side, how many, pixels that are averaged before.
BANKS = ((2, 16, 1), (3, 16, 1), (5, 12, 1), (3, 12, 2))


def pictures(x):
    """Patches [N,tokens,192] -> [N,3,height,width]."""
    return unpatchify(x[None])[0].permute(0, 3, 1, 2)


def distance(made, true, generator=None):
    """Distance of the distributions of patches of pictures [N,3,H,W], the same number of each."""
    out = 0
    for side, many, mean in BANKS:
        w = torch.randn(many, 3, side, side, device=made.device, generator=generator)
        w = w - w.mean((2, 3), keepdim=True)
        shift = int(torch.randint(0, 2, (1,))) if mean == 1 else 0
        answers = []
        for x in (true, made):
            x = F.avg_pool2d(x, mean) if mean > 1 else x[..., shift:, shift:]
            answers.append(F.conv2d(x, w, stride=2 if mean == 1 else 1).transpose(0, 1).flatten(1).sort(1).values)
        unit = 0.5 * answers[0].abs().mean(1, keepdim=True)
        out = out + (torch.asinh(answers[1] / unit) - torch.asinh(answers[0] / unit)).square().mean()
    return out / len(BANKS)


class Dreams:
    """A bank of dreams by the averaged weights, and the loss on them.

    n dreams of `long` frames are made at once; a training batch takes `batch` windows of `frames` frames of them.
    """

    def __init__(self, m, sim, seed, n=64, long=256, policy="window:32"):
        self.sim, self.seed, self.n, self.long, self.policy = sim, seed, n, long, policy
        self.dev = next(m.parameters()).device
        self.player = TinyWorld(m.c).to(self.dev).eval().requires_grad_(False)
        self.sums, self.count = torch.zeros(4, device=self.dev), 0

    @torch.no_grad()
    def refresh(self, weights):
        """Dream anew with these weights (in the order of parameters())."""
        for p, w in zip(self.player.parameters(), weights):
            p.copy_(w)
        w, tok, pose, act = self.sim.gen(self.seed, self.n, self.long, kind=STROLL)
        size = (self.player.columns * 8, self.player.rows * 8)
        first = patchify(self.sim.render(w, pose[:, :1], *size)).expand(-1, self.long, -1, -1)
        track = []
        made = rollout(self.player, first, tok, act, pose[..., 2].round().long(), 1, self.policy, steps=4, shift=1.0, seed=self.seed,
                       blocked=0.02, evade=True, track=track)
        self.true = self.sim.render(w, data.blind(self.sim, w, pose, act)[0], *size)
        self.made, self.tok, (self.xy, head, self.act) = made.half(), tok, track
        self.head = head.round().long()
        self.seed += self.n

    def windows(self, batch, frames):
        """Frames, tokens, actions, headings, places of random windows."""
        clip = torch.randperm(self.n)[:batch].to(self.dev)
        at = torch.randint(0, self.long - frames + 1, (batch, 1), device=self.dev)
        i = at + torch.arange(frames, device=self.dev)
        c = clip[:, None]
        return self.made[c, i].float(), self.tok[clip], self.act[c, i], self.head[c, i], self.xy[c, i]

    def loss(self, m, batch, frames, bm):
        """The distance, and what the coarse picture has moved."""
        x, tok, act, head, xy = self.windows(batch, frames)
        auto = torch.autocast(self.dev.type, torch.bfloat16, enabled=self.dev.type == "cuda")
        pf = m.features(torch.cat(data.places(xy, act, head), 1), head.repeat(1, 2))
        pos, tc = torch.arange(frames, device=self.dev), torch.zeros(batch, frames, device=self.dev)
        eps, t = torch.randn_like(x), torch.full_like(tc, 0.5)
        with torch.no_grad(), auto:
            before = m(x, 0.5 * x + 0.5 * eps, tc, t, act, head, tok, pos, bm, pf).float().clamp(-1, 1)
        then = 0.25
        z = (1 - then) * before + then * (0.5 * x + 0.5 * eps - 0.5 * before) / 0.5
        with auto:
            p = m(x, z, tc, torch.full_like(tc, then), act, head, tok, pos, bm, pf).float()
        some = torch.rand(batch, frames, device=self.dev)
        some[:, 0] = 0
        pick = some.flatten().topk(batch * frames // 2).indices
        made = pictures(p.flatten(0, 1)[pick])
        i = torch.randint(0, self.n * self.long, (len(pick),), device=self.dev)
        true = pictures(patchify(self.true.flatten(0, 1)[i][None])[0])
        far = distance(made, true)
        steady = (F.avg_pool2d(made, 8) - F.avg_pool2d(pictures(x.flatten(0, 1)[pick]), 8)).square().mean()
        with torch.no_grad():
            edges = [(v[..., 1:] - v[..., :-1]).abs().mean() for v in (made, true)]
            self.sums += torch.stack((far.detach(), steady.detach(), *edges))
            self.count += 1
        return far + 2 * steady

    def line(self):
        if self.count:
            far, steady, made, true = (self.sums / self.count).tolist()
            print(f"dreams {self.count}: distance {far:.5f} steady {steady:.5f} gradients {made / true:.3f} of the truth's", flush=True)
        self.sums.zero_()
        self.count = 0
