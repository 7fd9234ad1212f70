"""Sharpening: an adversarial loss on the last step of few-step sampling, beside the usual loss.

Half of the noisy frames of a batch are as in train.py. The others come from noise by the model's own steps, as in the sampler
(1 -> .5 -> .25, 1 -> .5 or 1 -> .75; contexts are true ones), and their last estimate must look real to a discriminator that sees
the frame beside the true one before it. Averages over 4x4 pixels must stay those of the estimate before, so that only
detail is free. At the network's output the adversarial gradient gets a fixed share of the usual one's norm.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import spectral_norm

import data
from tw import patchify, unpatchify

PATHS = ((1.0, 0.5, 0.25), (1.0, 0.5, 0.25), (1.0, 0.5), (1.0, 0.75))


class Discriminator(nn.Module):
    """Pairs of frames [N,6,height,width] -> realness of places of 8x8 pixels."""

    def __init__(self):
        super().__init__()
        def conv(i, o, s):
            return spectral_norm(nn.Conv2d(i, o, 4 if s == 2 else 3, s, 1))
        self.layers = nn.Sequential(conv(6, 64, 2), nn.LeakyReLU(0.2), conv(64, 128, 2), nn.LeakyReLU(0.2), conv(128, 256, 2),
                                    nn.LeakyReLU(0.2), conv(256, 256, 1), nn.LeakyReLU(0.2), conv(256, 1, 1))

    def forward(self, x):
        return self.layers(x)


def pictures(x):
    """Patches [N,tokens,192] -> [N,3,height,width]."""
    return unpatchify(x[None])[0].permute(0, 3, 1, 2)


def coarse(x):
    """Means over 4x4 pixels."""
    return F.avg_pool2d(pictures(x), 4)


class Sharpener:
    def __init__(self, m, dev, share, lr=3e-4):
        self.m, self.share = m, share
        self.d = Discriminator().to(dev)
        self.opt = torch.optim.Adam(self.d.parameters(), lr=lr, betas=(0.0, 0.9))
        self.sums, self.n = torch.zeros(4, device=dev), 0

    def step(self, clip, step, bm, noise_levels, noisy_context):
        """Backward of one batch for the model, and one step of the discriminator; returns loss, errors and levels as clip_loss."""
        m, (vid, tok, act, head, xy) = self.m, clip
        dev, (batch, frames) = act.device, act.shape
        auto = torch.autocast(dev.type, torch.bfloat16, enabled=dev.type == "cuda")
        x = patchify(vid)
        pos = torch.arange(frames, device=dev)
        pf = m.features(torch.cat(data.places(xy, act, head), 1), head.repeat(1, 2))
        xc, tc = noisy_context(x)
        own = torch.rand(batch, frames, device=dev) < 0.5
        own[:, 0] = False
        path = PATHS[step % len(PATHS)]
        tn = torch.where(own, torch.full_like(tc, path[0]), noise_levels(batch, frames, dev))
        z = (1 - tn)[..., None, None] * x + tn[..., None, None] * torch.randn_like(x)
        before = x
        for t, then in zip(path, path[1:]):
            with torch.no_grad(), auto:
                before = m(xc, z, tc, tn, act, head, tok, pos, bm, pf).float().clamp(-1, 1)
            onward = (1 - then) * before + then * (z - (1 - t) * before) / t
            z = torch.where(own[..., None, None], onward, z)
            tn = torch.where(own, torch.full_like(tn, then), tn)
        with auto:
            p = m(xc, z, tc, tn, act, head, tok, pos, bm, pf)
        p = p.float()
        se = (p.detach() - x).square().mean((2, 3))
        pair = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)[own]
        real, fake = x[own], p[own]
        # The discriminator's turn.
        seen = pictures(pair)
        with auto:
            yes, no = self.d(torch.cat((seen, pictures(real)), 1)), self.d(torch.cat((seen, pictures(fake.detach())), 1))
        d_loss = F.relu(1 - yes.float()).mean() + F.relu(1 + no.float()).mean()
        d_loss.backward()
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        # The model's.
        weight = torch.where(own, torch.zeros_like(tn), 1 / tn.clamp(min=0.2).square())
        usual = ((p - x).square().mean((2, 3)) * weight).sum() / (batch * frames)
        steady = (coarse(fake) - coarse(before[own])).square().mean() * 4
        self.d.requires_grad_(False)
        with auto:
            wanted = -self.d(torch.cat((seen, pictures(fake)), 1)).float().mean()
        self.d.requires_grad_(True)
        of_usual, = torch.autograd.grad(usual + steady, p, retain_graph=True)
        of_wanted, = torch.autograd.grad(wanted, p, retain_graph=True)
        scale = self.share * of_usual.norm() / of_wanted.norm().clamp(min=1e-12)
        p.backward(of_usual + scale * of_wanted)
        self.sums += torch.stack((d_loss.detach(), yes.float().mean().detach(), no.float().mean().detach(), steady.detach()))
        self.n += 1
        if self.n % 50 == 0:
            v = (self.sums / 50).tolist()
            self.sums.zero_()
            print(f"sharpen {self.n}: d {v[0]:.3f} real {v[1]:.2f} fake {v[2]:.2f} steady {v[3]:.5f}", flush=True)
        return usual.detach(), se, tn
