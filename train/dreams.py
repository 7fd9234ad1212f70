"""Sharper dreams: a loss on what the model makes after its own frames, where no truth is known.

From one true frame the averaged weights dream strolls with the sampler's own steps (batch.py), a player turning away where a wall
stops it. In training steps these dreams are contexts and starting points: each frame is noised to .5, goes one step of the sampler
without gradient, and the next estimate must look, over the batch, like true walks of players who know as little of the walls.
"Look like" is a distance of distributions: filters of random numbers that see no flat colour, the answers of made and of true frames
sorted, and the mean squared difference of equals in rank (sliced Wasserstein distance of patches). Answers are compared as
asinh(x / half their true mean magnitude), or the few strongest edges would decide. Means over 8x8 pixels stay those of the dream.
Every fourth batch has true frames as contexts and is compared with the same true frames, or pictures after them become too sharp.

A bank of long dreams by memory of poses can be made beforehand (while a training program still compiles), for --dream_bank:

    python3 dreams.py WEIGHTS BANK [FRAMES CLIPS DEVICE]
"""
import os
import sys
import time

import torch
import torch.nn.functional as F

import data
from batch import rollout
from simulator import STROLL, Sim
from tw import PLACED, TinyWorld, load, patchify, unpatchify

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

    n dreams of `long` frames are made at once; a training batch takes `batch` windows of `frames` frames of them. Four banks follow
    each other: a new one, sampled in four steps; that one dreamt on, so that its histories are twice as long; the same two in two steps.
    A quarter of the players press on into walls (data.press).
    """

    AGAIN = 40  # frames of a bank that the next one begins with
    NEW = 150  # of a bank from a file, three of four windows begin after this frame
    FILED = ("made", "tok", "xy", "head", "act", "true", "true_act", "true_xy", "true_head")

    def __init__(self, m, sim, seed, n=64, long=256, policy="window:32"):
        self.sim, self.seed, self.n, self.long, self.policy = sim, seed, n, long, policy
        self.dev, self.banks = next(m.parameters()).device, 0
        self.player = TinyWorld(m.c).to(self.dev).eval().requires_grad_(False)
        self.sums, self.filed = {}, False

    @torch.no_grad()
    def refresh(self, weights):
        """Dream anew, or on, with these weights (in the order of parameters())."""
        for p, w in zip(self.player.parameters(), weights):
            p.copy_(w)
        kind = self.banks % 4
        self.banks += 1
        if kind % 2:
            again = min(self.AGAIN, self.long // 2)
            first = torch.cat((self.made[:, -again:].float(), self.made[:, -1:].float().expand(-1, self.long - again, -1, -1)), 1)
            act = torch.cat((self.act[:, -again:], self.later[:, :self.long - again]), 1)
            head, ctx = self.head[:, -again:-again + 1].expand(-1, self.long), again
        else:
            first, act, head, ctx = *self.anew(), 1
            self.steps = 2 if kind == 2 else 4
        track = []
        made = rollout(self.player, first, self.tok, act, head, ctx, self.policy, steps=self.steps, shift=1.0, seed=self.seed,
                       blocked=0.02, evade=~self.presses, track=track)
        self.made, (self.xy, head, self.act) = made.half(), track
        self.head = head.round().long()
        self.seed += self.n

    def anew(self):
        """Other worlds: first frames, actions and headings; and true walks there, of players who know as little of the walls."""
        w, self.tok, pose, act = self.sim.gen(self.seed, self.n, 2 * self.long, kind=STROLL)
        size = (self.player.columns * 8, self.player.rows * 8)
        few = max(1, self.n // 4)
        self.presses = torch.arange(self.n, device=self.dev) >= self.n - few
        walk, done = data.blind(self.sim, w, pose[:, :self.long], act[:, :self.long])
        pressed, act[-few:] = data.press(self.sim, w[-few:], pose[-few:], torch.Generator().manual_seed(self.seed))
        walk[-few:], done[-few:] = pressed[:, :self.long], act[-few:, :self.long]
        self.later, act = act[:, self.long:], act[:, :self.long]
        self.true, self.true_act = self.sim.render(w, walk, *size), done
        self.true_xy, self.true_head = walk[..., :2], walk[..., 2].round().long()
        first = patchify(self.true[:, :1]).expand(-1, self.long, -1, -1)
        return first, act, pose[:, :self.long, 2].round().long()

    @torch.no_grad()
    def write(self, path, weights):
        """Dream `long` frames with memory by pose, and write what windows are taken of."""
        self.player.load_state_dict(weights)
        first, act, head = self.anew()
        track = []
        made = rollout(self.player, first, self.tok, act, head, 1, "pose", steps=4, shift=1.0, seed=self.seed, blocked=0.02,
                       evade=~self.presses, track=track, ring=self.long)
        self.made, (self.xy, head, self.act) = made.half(), track
        self.head = head.round().long()
        torch.save({k: getattr(self, k).cpu() for k in self.FILED}, path + ".part")
        os.replace(path + ".part", path)

    def read(self, path):
        """Take the dreams of a file; they are dreamt in four steps, and trained on as ends of four or of two."""
        for k, v in torch.load(path, map_location=self.dev).items():
            setattr(self, k, v)
        self.n, self.long, self.filed = *self.made.shape[:2], True

    def windows(self, batch, frames, of_truth):
        """Frames, tokens, actions, headings, places of random windows."""
        clip = torch.randperm(self.n)[:batch].to(self.dev)
        at = torch.randint(0, self.long - frames + 1, (batch, 1), device=self.dev)
        if self.filed:
            new, draw = min(self.NEW, (self.long - frames) // 2), torch.rand(2, batch, 1, device=self.dev)
            at = torch.where(draw[0] < 0.25, at % max(1, new), new + (draw[1] * (self.long - frames - new)).long())
        i = at + torch.arange(frames, device=self.dev)
        c = clip[:, None]
        if of_truth:
            return patchify(self.true[c, i]), self.tok[clip], self.true_act[c, i], self.true_head[c, i], self.true_xy[c, i]
        return self.made[c, i].float(), self.tok[clip], self.act[c, i], self.head[c, i], self.xy[c, i]

    def loss(self, m, batch, frames, bm, of_truth=False):
        """The distance, and what the coarse picture has moved. of_truth: after true frames instead, against the same true frames."""
        if self.filed:
            self.steps = 4 if torch.rand(1).item() < 0.5 else 2
        x, tok, act, head, xy = self.windows(batch, frames, of_truth)
        auto = torch.autocast(self.dev.type, torch.bfloat16, enabled=self.dev.type == "cuda")
        pf = m.features(torch.cat(data.places(xy, act, head), 1), head.repeat(1, 2))
        pos, tc = torch.arange(frames, device=self.dev), torch.zeros(batch, frames, device=self.dev)
        t, then = (0.5, 0.25) if self.steps == 4 else (1.0, 0.5)  # the sampler's last two levels
        z = (1 - t) * x + t * torch.randn_like(x)
        with torch.no_grad(), auto:
            before = m(x, z, tc, torch.full_like(tc, t), act, head, tok, pos, bm, pf).float().clamp(-1, 1)
        z = (1 - then) * before + then * (z - (1 - t) * before) / t
        with auto:
            p = m(x, z, tc, torch.full_like(tc, then), act, head, tok, pos, bm, pf).float()
        some = torch.rand(batch, frames, device=self.dev)
        some[:, 0] = 0
        pick = some.flatten().topk(batch * frames // 2).indices
        made, same = (pictures(v.flatten(0, 1)[pick]) for v in (p, x))
        if of_truth:
            true = same
        else:
            true = pictures(patchify(self.true.flatten(0, 1)[torch.randint(0, self.n * self.long, (len(pick),), device=self.dev)][None])[0])
        far = distance(made, true)
        coarse = pictures(before.flatten(0, 1)[pick]) if t == 1 else same
        steady = (F.avg_pool2d(made, 8) - F.avg_pool2d(coarse, 8)).square().mean()
        with torch.no_grad():
            edges = [(v[..., 1:] - v[..., :-1]).abs().mean() for v in (made, true)]
            self.sums.setdefault(f"{'after true frames' if of_truth else 'dreams'} in {self.steps}", []).append(torch.stack((far.detach(), steady.detach(), *edges)))
        return far + 2 * steady

    def line(self):
        for name, sums in self.sums.items():
            far, steady, made, true = torch.stack(sums).mean(0).tolist()
            print(f"{name}, {len(sums)}: distance {far:.5f} steady {steady:.5f} gradients {made / true:.3f} of the truth's", flush=True)
        self.sums = {}


def main():
    weights, path = sys.argv[1:3]
    long, n, dev = (sys.argv[3:] + ["800", "64", "cuda"][len(sys.argv) - 3:])[:3]
    torch.set_float32_matmul_precision("high")
    began, sim = time.time(), Sim(dev)
    Dreams(TinyWorld(PLACED).to(dev), sim, 1_060_000_000, int(n), int(long)).write(path, load(weights))
    print(f"{n} dreams of {long} frames in {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
