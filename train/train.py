"""Teacher-forced flow matching with [clean | noisy] copies of every clip; needs one CUDA GPU and torch >= 2.6.

Phases are "T:B:seconds[:resample]": clips of T frames, batches of B, for so many seconds of wall time. Writes the
averaged weights to $OUT/<name>.safetensors (bf16), the same in float32 parts for --init, and the log as JSON.
"""
import argparse
import json
import os
import time

import torch
import torch._dynamo

from simulator import Sim
from tw import CFG, TinyWorld, load, patchify, save, train_mask

DEV = "cuda"


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("--phases", default="32:64:30,96:20:30")
    ap.add_argument("--init", default="", help="float32 weights to start from")
    ap.add_argument("--init_parts", type=int, default=1)
    ap.add_argument("--mlr", type=float, default=0.02, help="learning rate of Muon")
    ap.add_argument("--alr", type=float, default=1.5e-3, help="learning rate of AdamW")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--decay_from", type=float, default=0.5, help="share of the wall time after which the rate falls")
    ap.add_argument("--name", default="tw")
    ap.add_argument("--ckpt_parts", type=int, default=2)
    return ap.parse_args()


def parse_phases(text):
    for phase in text.split(","):
        x = phase.split(":")
        yield int(x[0]), int(x[1]), float(x[2]), int(x[3]) if len(x) > 3 else 0


@torch.compile(dynamic=False)
def ns5(g, mom):
    """Muon's direction: Nesterov momentum, made nearly orthogonal by five Newton-Schulz steps; a batch of matrices."""
    mom.lerp_(g, 0.05)
    x = g.lerp(mom, 0.95).bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Optimiser:
    """Muon for the matrices of blocks, text layers and time MLP, AdamW for the rest, and the average of the weights."""

    def __init__(self, m, alr, mlr):
        self.alr, self.mlr = alr, mlr

        def for_muon(name, p):
            inner = "blocks." in name or "text_layers." in name or name in ("time1.weight", "time2.weight")
            return p.ndim == 2 and inner and "modulation" not in name

        muon = [p for name, p in m.named_parameters() if for_muon(name, p)]
        ids = {id(p) for p in muon}
        self.rest = [p for p in m.parameters() if id(p) not in ids]
        self.groups = {}
        for p in muon:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.mom = {k: torch.zeros(len(v), *k, device=DEV) for k, v in self.groups.items()}
        self.adam = torch.optim.AdamW(self.rest, lr=alr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.params = list(m.parameters())
        self.ema = [p.detach().clone() for p in self.params]

    def step(self, factor, step):
        for g in self.adam.param_groups:
            g["lr"] = self.alr * factor
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0, foreach=True)
        self.adam.step()
        lr = self.mlr * factor
        for shape, params in self.groups.items():
            update = ns5(torch.stack([p.grad for p in params]), self.mom[shape])
            weights = [p.data for p in params]
            torch._foreach_mul_(weights, 1 - lr * 0.02)
            torch._foreach_add_(weights, list(update.unbind(0)), alpha=-lr * max(1, shape[0] / shape[1]) ** 0.5)
        for p in self.params:
            p.grad = None
        torch._foreach_lerp_(self.ema, self.params, 1 - min(0.998, (step + 1) / (step + 20)))


def noise_levels(batch, frames):
    """Levels of the noisy copies: uniform, shifted by 3 (60%) or not (40%); a tenth exactly 1."""
    u = torch.rand(batch, frames, device=DEV)
    shift = torch.where(torch.rand(batch, frames, device=DEV) < 0.6, 3.0, 1.0)
    t = shift * u / (1 + (shift - 1) * u)
    return torch.where(torch.rand(batch, frames, device=DEV) < 0.1, torch.ones_like(t), t).clamp(0.02, 1)


def noisy_context(x):
    """Light noise on half of the context frames; in a fifth of the clips the first frames are pure noise, so that the
    prompt must be used. The model is told the levels."""
    batch, frames = x.shape[:2]
    tc = torch.rand(batch, frames, device=DEV) * 0.3 * (torch.rand(batch, frames, device=DEV) < 0.5)
    prefix = torch.randint(1, frames // 2, (batch, 1), device=DEV) * (torch.rand(batch, 1, device=DEV) < 0.2)
    tc = torch.where(torch.arange(frames, device=DEV) < prefix, torch.ones_like(tc), tc)
    tt = tc[..., None, None]
    return (1 - tt) * x + tt * torch.randn_like(x), tc


@torch.no_grad()
def resampled_context(m, x, xc, tc, act, head, tok, bm):
    """Runs of context frames replaced by the model's one-step re-denoising of the truth: right content, own errors."""
    batch, frames = act.shape
    ts = (0.25 + 0.65 * torch.rand(batch, 1, device=DEV)).expand(batch, frames)
    zt = (1 - ts)[..., None, None] * x + ts[..., None, None] * torch.randn_like(x)
    own = m(xc, zt, tc, ts, act, head, tok, torch.arange(frames, device=DEV), bm).float().clamp(-1, 1)
    runs = (torch.rand(batch, frames, device=DEV) < 0.04).cumsum(1) + torch.randint(0, 2, (batch, 1), device=DEV)
    return noisy_context(torch.where((runs % 2 == 1)[..., None, None], own, x))


def clip_loss(m, clip, step, resample, bm):
    """Loss of one batch, the squared error per frame [B,T] and the noise levels [B,T]."""
    vid, tok, act, head = clip
    batch, frames = act.shape
    x = patchify(vid)
    pos, first = torch.arange(frames, device=DEV), 0
    if step % 4 == 3:  # the first frames share one temporal position: trains the clamp of the sampler
        s = int(torch.randint(1, frames // 3 + 1, (1,)))
        pos, first = (pos - s).clamp(min=0), s + 4
    xc, tc = noisy_context(x)
    tn = noise_levels(batch, frames)
    eps = torch.randn_like(x)
    with torch.autocast(DEV, torch.bfloat16):
        if resample and step % 2 == 0:
            xc, tc = resampled_context(m, x, xc, tc, act, head, tok, bm)
        z = (1 - tn)[..., None, None] * x + tn[..., None, None] * eps
        p = m(xc, z, tc, tn, act, head, tok, pos, bm)
    se = (p.float() - x).square().mean((2, 3))
    weight = 1 / tn.clamp(min=0.2).square()
    of_frame = torch.ones(frames, device=DEV)
    of_frame[0] = 3
    of_frame[:first] = 0
    return (se * weight * of_frame).sum() / (of_frame.sum() * batch), se, tn


class Log:
    """Means over the steps since the last line: loss, error at t > .95, of frame 0, of the second half of the clip."""

    def __init__(self):
        self.lines, self.sums, self.n, self.frames = [], torch.zeros(4, device=DEV), 0, 0
        self.start = time.time()

    @torch.no_grad()
    def add(self, loss, se, tn):
        high = (tn > 0.95).float()
        high[:, :8] = 0
        of_high = (se * high).sum() / high.sum().clamp(min=1)
        self.sums += torch.stack((loss.detach(), of_high, se[:, 0].mean(), se[:, se.shape[1] // 2:].mean()))
        self.n += 1
        self.frames += se.numel()

    def line(self, step, clip_frames, factor):
        if step % 100 and not (step < 100 and step % 10 == 0):
            return
        v = (self.sums / self.n).tolist()
        self.sums.zero_()
        self.n = 0
        seconds = time.time() - self.start
        self.lines.append([step, round(seconds, 1), clip_frames, *[round(x, 5) for x in v]])
        print(f"step {step} {seconds:.0f}s T={clip_frames} loss {v[0]:.4f} mse(t>.95) {v[1]:.4f} frame0 {v[2]:.4f} "
              f"late {v[3]:.4f} lr {factor:.2f} {self.frames / seconds:.0f} fr/s", flush=True)


def rate_factor(step, elapsed, decay_from):
    """Warm-up over 100 steps, constant, then linear down to 2% by share of the wall time."""
    decay = 1 if elapsed < decay_from else max(0.02, (1 - elapsed) / (1 - decay_from))
    return min(1, (step + 1) / 100) * decay


def compiled_model(a):
    m = TinyWorld().to(DEV)
    if a.init:
        print(m.load_state_dict(load(a.init, a.init_parts), strict=False))
    for block in m.blocks:
        block.compile(dynamic=False)
    m.embed = torch.compile(m.embed, dynamic=False)
    m.out = torch.compile(m.out, dynamic=False)
    return m


def main():
    a, out = arguments(), os.environ.get("OUT", ".")
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    sim = Sim()
    m = compiled_model(a)
    opt, phases = Optimiser(m, a.alr, a.mlr), list(parse_phases(a.phases))
    total, log, step, seed = sum(p[2] for p in phases), Log(), 0, a.seed * 100_000_000 + 10_000_000
    for frames, batch, seconds, resample in phases:
        bm, end = train_mask(frames), time.time() + seconds
        many = max(batch, (256 // batch) * batch)  # clips are simulated some batches at a time
        clips, at = None, 0
        while time.time() < end:
            if clips is None or at + batch > many:
                clips, at = sim.clips(seed, many, frames), 0
                seed += many
            loss, se, tn = clip_loss(m, [c[at:at + batch] for c in clips[:4]], step, resample, bm)
            at += batch
            loss.backward()
            factor = rate_factor(step, (time.time() - log.start) / total, a.decay_from)
            opt.step(factor, step)
            step += 1
            log.add(loss, se, tn)
            log.line(step, frames, factor)
        print(f"phase T={frames} B={batch} done at step {step}; "
              f"memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    weights = {name: e for (name, _), e in zip(m.named_parameters(), opt.ema)}
    save(weights, f"{out}/{a.name}.safetensors")
    if a.ckpt_parts:
        save(weights, f"{out}/{a.name}_f32.safetensors", dtype=torch.float32, parts=a.ckpt_parts)
    with open(f"{out}/{a.name}_train.json", "w") as f:
        json.dump({"cfg": CFG, "log": log.lines, "args": vars(a), "frames": log.frames, "steps": step}, f)
    print("saved", step, "steps", log.frames, "frames", round(time.time() - log.start), "s", flush=True)


if __name__ == "__main__":
    main()
