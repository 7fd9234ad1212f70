"""What memory alone can reach, by the simulator: python3 limits.py [CLIPS]

For the clips of evaluate.py: the share of pixels that no frame before (for ways back: no given frame) has shown, and the decibels of a player
who knows the rest exactly and paints the new pixels in one colour: the mean of their surface (the walls or the floor of a region, the sky,
landmarks), which takes knowing where it is, or of their row in the picture, which does not. Pooled over clips, and as means of clips.
"""
import sys

import torch

from evaluate import Evaluation, psnr
from simulator import LOOK, MIXED, RETURN, STROLL, UNDO, Sim
from tw import PLACED

TESTS = (("next frame, mixed", MIXED, 80, 0, 0, 1, 80), ("next frame, stroll", STROLL, 80, 0, 0, 1, 80), ("look around", LOOK, 61, 30, 31, 31, 61),
         ("walk 40 and undo", UNDO, 81, 40, 41, 41, 81), ("turn round, walk back", RETURN, 110, 40, 56, 56, 96), ("turn round again", RETURN, 110, 40, 56, 96, 110))


class Clips(Evaluation):
    """The clips of an evaluation, without a model."""

    def __init__(self, many):
        self.a = type("", (), dict(clips=many))
        self.m = type("", (), dict(c=PLACED))
        self.sim = Sim("cpu")


def by_surface(x, what):
    """Every pixel of x [B,F,H,W,3] in its surface's mean colour of the clip."""
    out = torch.zeros_like(x)
    for clip, surface, to in zip(x, what, out):
        for i in surface.unique():
            to[surface == i] = clip[surface == i].mean(0)
    return out


def main():
    clips = Clips(int((sys.argv[1:] or ["64"])[0]))
    for name, kind, frames, span, given, low, high in TESTS:
        clips.clips(1000 if given == 0 else 3000, kind, frames, span, clean=given > 0)
        w, pose = clips.walk
        x = clips.sim.render(w, pose)[:, low:high].float() / 127.5 - 1
        seen, what = (v[:, low:high] for v in clips.sim.seen(w, pose, given))
        new = (seen == 0)[..., None].float()
        found = []
        for guess in (by_surface(x, what), x.mean((1, 3), keepdim=True)):
            se = ((guess - x).square() * new).mean((2, 3, 4))
            found.append(f"{psnr(se.mean()).item():.1f} ({psnr(se.mean(1)).mean().item():.1f})")
        print(f"{name}: never seen {new.mean().item():.4f}, only from far {(seen == 1).float().mean().item():.4f}; by surface {found[0]}, by row {found[1]} dB", flush=True)


if __name__ == "__main__":
    main()
