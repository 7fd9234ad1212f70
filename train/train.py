"""Teacher-forced flow matching with [clean | noisy] copies of every clip; one CUDA GPU, torch >= 2.6, or a tiny dry run
on the CPU.

Training comes in sittings: each starts from averaged weights (--init: a .safetensors file or the stem of a checkpoint, see
checkpoint.py), trains for --seconds, saves $OUT/NAME-hi.bin and -lo.bin every --save seconds, and its log as NAME-log.json.
"""
import argparse
import json
import os
import time

import torch

import checkpoint
import data
from dreams import Dreams
from grow import grown
from simulator import Sim
from tw import CONFIGS, TinyWorld, image, load, patchify, train_mask, widened


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("--config", choices=CONFIGS, default="tinyworld")
    ap.add_argument("--frames", type=int, default=112, help="length of clips; even")
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--seconds", type=float, default=60)
    ap.add_argument("--start", type=float, default=0, help="time.time() from which the seconds count; 0: when training begins")
    ap.add_argument("--dream_from", type=float, default=1, help="share of the time after which dreams are trained on (dreams.py); 1: never")
    ap.add_argument("--dream_every", type=int, default=3, help="steps from one batch of dreams to the next")
    ap.add_argument("--dream_share", type=float, default=0.4, help="norm of the first dreams' gradient, of the usual one's")
    ap.add_argument("--dream_weight", type=float, default=0, help="weight of their gradient instead; 0: by --dream_share")
    ap.add_argument("--dream_new", type=float, default=30, help="seconds after which dreams are made anew")
    ap.add_argument("--dream_bank", default="", help="take these dreams (dreams.py makes them) from when the file is there")
    ap.add_argument("--dream_clips", type=int, default=64, help="dreams that are made at once; not fewer than --batch")
    ap.add_argument("--dream_frames", type=int, default=256, help="their length; not less than --frames")
    ap.add_argument("--steps", type=int, default=10 ** 9)
    ap.add_argument("--init", default="", help="where to start; empty: random weights")
    ap.add_argument("--grow", default="", help="the configuration of --init, if it is a smaller one (grow.py)")
    ap.add_argument("--mlr", type=float, default=0.02, help="learning rate of Muon")
    ap.add_argument("--alr", type=float, default=1.5e-3, help="learning rate of AdamW")
    ap.add_argument("--warm", type=int, default=50, help="steps of warm-up")
    ap.add_argument("--decay_from", type=float, default=0.6, help="share of the time after which the rate falls")
    ap.add_argument("--decay_to", type=float, default=0.02, help="share of the rate that is left at the end")
    ap.add_argument("--average", type=float, default=0.998)
    ap.add_argument("--sitting", type=int, default=1, help="seeds of clips and noise")
    ap.add_argument("--save", type=float, default=100)
    ap.add_argument("--short", type=int, default=0, metavar="LEVELS", help="save 8 bits a value (NAME-q8.bin, 127 levels or fewer) instead of 24")
    ap.add_argument("--name", default="train")
    ap.add_argument("--device", default="cuda")
    return ap.parse_args()


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

    def __init__(self, m, alr, mlr, average, compiled):
        self.alr, self.mlr, self.average = alr, mlr, average
        self.ns5 = torch.compile(ns5, dynamic=False) if compiled else ns5

        def for_muon(name, p):
            inner = "blocks." in name or "text_layers." in name or name in ("time1.weight", "time2.weight")
            return p.ndim == 2 and inner and "modulation" not in name and "place" not in name

        muon = [p for name, p in m.named_parameters() if for_muon(name, p)]
        ids = {id(p) for p in muon}
        self.rest = [p for p in m.parameters() if id(p) not in ids]
        self.groups = {}
        for p in muon:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.mom = {k: torch.zeros(len(v), *k, device=v[0].device) for k, v in self.groups.items()}
        self.adam = torch.optim.AdamW(self.rest, lr=alr, betas=(0.9, 0.98), weight_decay=0.0, **(dict(fused=True) if compiled else {}))
        self.params = list(m.parameters())
        self.ema = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def step(self, factor, step):
        for g in self.adam.param_groups:
            g["lr"] = self.alr * factor
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        self.adam.step()
        lr = self.mlr * factor
        for shape, params in self.groups.items():
            update = self.ns5(torch.stack([p.grad for p in params]), self.mom[shape])
            weights = [p.data for p in params]
            torch._foreach_mul_(weights, 1 - lr * 0.02)
            torch._foreach_add_(weights, list(update.unbind(0)), alpha=-lr * max(1, shape[0] / shape[1]) ** 0.5)
        for p in self.params:
            p.grad = None
        keep = min(self.average, (step + 1) / (step + 20))
        torch._foreach_mul_(self.ema, keep)
        torch._foreach_add_(self.ema, self.params, alpha=1 - keep)


def noise_levels(batch, frames, dev):
    """Levels of the noisy copies: uniform, shifted by 3 (60%) or not (40%); a tenth exactly 1."""
    u = torch.rand(batch, frames, device=dev)
    shift = torch.where(torch.rand(batch, frames, device=dev) < 0.6, 3.0, 1.0)
    t = shift * u / (1 + (shift - 1) * u)
    return torch.where(torch.rand(batch, frames, device=dev) < 0.1, torch.ones_like(t), t).clamp(0.02, 1)


def noisy_context(x, hide):
    """Noise on context frames, its level told to the model: light on half of them; pure on the first ones of a fifth of
    the clips, and on all of those to hide [B], so that the prompt must be used; pure on a run of frames in a third of the
    clips, so that what was there must come from older frames of the same place."""
    batch, frames = x.shape[:2]
    dev = x.device
    i = torch.arange(frames, device=dev)
    tc = torch.rand(batch, frames, device=dev) * 0.3 * (torch.rand(batch, frames, device=dev) < 0.5)
    prefix = torch.randint(1, frames // 2, (batch, 1), device=dev) * (torch.rand(batch, 1, device=dev) < 0.2)
    first = torch.randint(min(4, frames - 1), frames, (batch, 1), device=dev)
    many = torch.randint(3, 28, (batch, 1), device=dev) * (torch.rand(batch, 1, device=dev) < 0.35)
    tc = torch.where(hide[:, None] | (i < prefix) | (i >= first) & (i < first + many), torch.ones_like(tc), tc)
    tt = tc[..., None, None]
    return (1 - tt) * x + tt * torch.randn_like(x), tc


@torch.no_grad()
def resampled_context(m, x, xc, tc, act, head, tok, hide, bm, pf, passes):
    """Runs of context frames replaced by the model's re-denoising of the truth, in one step or, the second one after the
    runs of the first, in two: right content, own errors."""
    batch, frames = act.shape
    dev = x.device
    ts = (0.25 + 0.75 * torch.rand(batch, 1, device=dev)).expand(batch, frames)
    eps, pos = torch.randn_like(x), torch.arange(frames, device=dev)
    z = (1 - ts)[..., None, None] * x + ts[..., None, None] * eps
    runs = (torch.rand(batch, frames, device=dev) < 0.04).cumsum(1) + torch.randint(0, 2, (batch, 1), device=dev)
    runs = (runs % 2 == 1)[..., None, None]
    for i in range(passes):
        own = m(xc, z, tc, ts, act, head, tok, pos, bm, pf).float().clamp(-1, 1)
        xc, tc = noisy_context(torch.where(runs, own, x), hide)
        if i + 1 < passes:
            eps = (z - (1 - ts)[..., None, None] * own) / ts[..., None, None]
            ts = ts * 0.5
            z = (1 - ts)[..., None, None] * own + ts[..., None, None] * eps
    return xc, tc


@torch.no_grad()
def own_estimates(m, x, z, tn, xc, tc, act, head, tok, pos, bm, pf):
    """Noisy copies and levels, half of the frames as the sampler comes to them: from the model's own estimate at its level before
    (1 to .5 in two steps; 1, .75 to .25 less in four), not from the truth. Not at the last level of four, where dreams get their sharpness; not
    where the prompt is all there is: what may be there is not to become the mean of it."""
    batch, frames = act.shape
    dev = x.device
    start = 1 - 0.25 * torch.randint(0, 2, (batch, frames), device=dev)
    to = start - 0.25
    two = torch.rand(batch, frames, device=dev) < 0.5
    start, to = torch.where(two, torch.ones_like(start), start), torch.where(two, torch.full_like(to, 0.5), to)
    ta, tb = start[..., None, None], to[..., None, None]
    eps = torch.randn_like(x)
    za = (1 - ta) * x + ta * eps
    own = m(xc, za, tc, start, act, head, tok, pos, bm, pf).float().clamp(-1, 1)
    zb = (1 - tb) * own + tb * (za - (1 - ta) * own) / ta
    mine = (torch.rand(batch, frames, device=dev) < 0.5) & ~from_text(tc)
    return torch.where(mine[..., None, None], zb, z), torch.where(mine, to, tn)


def from_text(tc):
    """Frames [B,T] with no context before them but pure noise."""
    hidden = (tc >= 1).long().cumprod(1)
    return torch.cat((torch.ones_like(hidden[:, :1]), hidden[:, :-1]), 1).bool()


def by_error(se, text):
    """Weights of frames [B,T]: 1 where the prompt is all there is; of the others 1 on average, half of it equal, half the larger the
    smaller the error is, as decibels weigh it."""
    w, other = 1 / (se.detach() + 0.003), (~text).float()
    w = 0.5 + 0.5 * w * other.sum().clamp(min=1) / (w * other).sum().clamp(min=1e-6)
    return torch.where(text, torch.ones_like(w), w)


def clip_loss(m, clip, step, bm):
    """Loss of one batch, the squared error per frame [B,T] and the noise levels [B,T]."""
    vid, tok, act, head, xy, hide = clip
    dev = act.device
    batch, frames = act.shape
    x = patchify(vid)
    pos, first = torch.arange(frames, device=dev), 0
    if step % 4 == 3:  # the first frames share one temporal position: trains the clamp of the sampler
        s = int(torch.randint(1, frames // 3 + 1, (1,)))
        pos, first = (pos - s).clamp(min=0), s + 4
    pf = m.features(torch.cat(data.places(xy, act, head), 1), head.repeat(1, 2))
    xc, tc = noisy_context(x, hide)
    tn = noise_levels(batch, frames, dev)
    eps = torch.randn_like(x)
    with torch.autocast(dev.type, torch.bfloat16, enabled=dev.type == "cuda"):
        z = (1 - tn)[..., None, None] * x + tn[..., None, None] * eps
        if step % 2 == 0:
            xc, tc = resampled_context(m, x, xc, tc, act, head, tok, hide, bm, pf, 1 + step // 2 % 2)
        else:  # half of these clips have nothing but true frames as contexts
            true = (torch.rand(batch, 1, device=dev) < 0.5) & ~hide[:, None]
            xc, tc = torch.where(true[..., None, None], x, xc), torch.where(true, torch.zeros_like(tc), tc)
            z, tn = own_estimates(m, x, z, tn, xc, tc, act, head, tok, pos, bm, pf)
    with torch.autocast(dev.type, torch.bfloat16, enabled=dev.type == "cuda"):  # autocast would keep casts made without gradients
        p = m(xc, z, tc, tn, act, head, tok, pos, bm, pf)
    se = (p.float() - x).square().mean((2, 3))
    weight = 1 / tn.clamp(min=0.2).square()
    of_frame = torch.ones(frames, device=dev)
    of_frame[0] = 5
    of_frame[:min(first, frames - 1)] = 0
    return (se * weight * by_error(se, from_text(tc)) * of_frame).sum() / (of_frame.sum() * batch), se, tn


class Log:
    """Means over the steps since the last line: loss, error at t > .95, of frame 0, of the second half of the clip."""

    def __init__(self, dev):
        self.lines, self.sums, self.n, self.frames = [], torch.zeros(4, device=dev), 0, 0
        self.start = self.since = time.time()
        self.before = 0

    @torch.no_grad()
    def add(self, loss, se, tn):
        high = (tn > 0.95).float()
        high[:, :8] = 0
        of_high = (se * high).sum() / high.sum().clamp(min=1)
        self.sums += torch.stack((loss.detach(), of_high, se[:, 0].mean(), se[:, se.shape[1] // 2:].mean()))
        self.n += 1
        self.frames += se.numel()

    def line(self, step, factor):
        if step % 100 and not (step < 100 and step % 20 == 0):
            return
        v = (self.sums / self.n).tolist()
        self.sums.zero_()
        self.n, now = 0, time.time()
        rate = (self.frames - self.before) / (now - self.since)
        self.since, self.before = now, self.frames
        self.lines.append([step, round(now - self.start, 1), *[round(x, 5) for x in v], round(factor, 3), round(rate)])
        print(f"step {step} {now - self.start:.0f}s loss {v[0]:.4f} mse(t>.95) {v[1]:.4f} frame0 {v[2]:.4f} late {v[3]:.4f} "
              f"rate {factor:.2f} {rate:.0f} fr/s", flush=True)


class Dreaming:
    """When dreams are made and trained on, and how much their gradient weighs beside the usual one."""

    CALIBRATION = 20

    def __init__(self, a, m, sim, bm, seed):
        self.a, self.m, self.bm, self.dreams = a, m, bm, Dreams(m, sim, seed, n=max(a.batch, a.dream_clips) if a.device == "cuda" else a.batch,
                                                               long=max(a.frames, a.dream_frames) if a.device == "cuda" else a.frames)
        self.made, self.grads, self.batches = 0, None, 0
        self.scales = [a.dream_weight] * self.CALIBRATION if a.dream_weight else []

    def step(self, opt):
        """Gradients of a batch of dreams, put aside."""
        if time.time() - self.made > self.a.dream_new:
            self.dreams.line()
            began = time.time()
            if not self.a.dream_bank:
                self.dreams.refresh(opt.ema)
            elif not self.dreams.filed:
                self.dreams.read(self.a.dream_bank)
            self.made = time.time()
            print(f"new dreams in {self.made - began:.1f} s, weight {self.scale():.3g}", flush=True)
        self.batches += 1
        self.dreams.loss(self.m, self.a.batch, self.a.frames, self.bm, of_truth=self.batches % 4 == 0).backward()
        self.grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in opt.params]
        for p in opt.params:
            p.grad = None

    def scale(self):
        return sum(self.scales) / max(1, len(self.scales))

    @torch.no_grad()
    def add(self, opt):
        """Add them to those of the usual loss. Their weight is set by the first batches' norms and then stays, so that they fade
        as dreams come to look true."""
        if self.grads is None:
            return
        if len(self.scales) < self.CALIBRATION:
            usual, own = (torch.stack(torch._foreach_norm(g)).norm().item() for g in ([p.grad for p in opt.params], self.grads))
            self.scales.append(self.a.dream_share * usual / max(own, 1e-12))
        torch._foreach_add_([p.grad for p in opt.params], self.grads, alpha=self.scale())
        self.grads = None


def rate_factor(a, step, elapsed):
    """Warm-up, constant, then linear down by share of the wall time."""
    decay = 1 if elapsed < a.decay_from else max(a.decay_to, 1 - (1 - a.decay_to) * (elapsed - a.decay_from) / (1 - a.decay_from))
    return min(1, (step + 1) / a.warm) * decay


def build(a):
    """The model, from --init, its blocks compiled on a GPU."""
    c = CONFIGS[a.config]
    m = TinyWorld(c)
    if a.grow:
        m.load_state_dict(grown(load(a.init), CONFIGS[a.grow], c))
    elif a.init.endswith(".safetensors"):
        r = m.load_state_dict(widened(load(a.init), c), strict=False)
        assert not r.unexpected_keys, r.unexpected_keys
        print("new:", len(r.missing_keys), "tensors", flush=True)
    elif a.init:
        checkpoint.load(list(m.parameters()), a.init)
    m = m.to(a.device)
    if a.device == "cuda":
        torch._dynamo.config.cache_size_limit = 64
        for block in m.blocks:
            block.compile(dynamic=False)
        m.embed = torch.compile(m.embed, dynamic=False)
        m.out = torch.compile(m.out, dynamic=False)
    return m


def main():
    a, out = arguments(), os.environ.get("OUT", ".")
    torch.manual_seed(a.sitting)
    generator = torch.Generator().manual_seed(a.sitting)
    torch.set_float32_matmul_precision("high")
    began = time.time()
    sim, m = Sim(a.device), build(a)
    dev = next(m.parameters()).device
    opt, bm = Optimiser(m, a.alr, a.mlr, a.average, a.device == "cuda"), train_mask(a.frames, a.device, m.tokens)
    print(f"{sum(p.numel() for p in m.parameters())} parameters, ready after {time.time() - began:.0f} s", flush=True)
    log, step, seed = Log(dev), 0, a.sitting * 100_000_000 + 10_000_000
    dreams = None
    start = a.start or log.start
    saved, many, clips, at = time.time(), max(a.batch, (256 // a.batch) * a.batch), None, 0

    def save():
        stem = f"{out}/{a.name}"
        if a.short:
            checkpoint.save_short(opt.ema, stem, a.short)
        else:
            checkpoint.save(opt.ema, stem)
        checkpoint.write(f"{out}/{a.name}-log.json", json.dumps(
            {"log": log.lines, "args": vars(a), "frames": log.frames, "steps": step, "seconds": round(time.time() - log.start)}).encode())

    while time.time() < start + a.seconds and step < a.steps:
        if clips is None or at + a.batch > many:
            clips, at = data.clips(sim, seed, many, a.frames, generator, image(m.c)), 0
            seed += many
        batch, spent = [c[at:at + a.batch] for c in clips], time.time() - start
        at += a.batch
        share = spent / a.seconds
        if share > a.dream_from and step % a.dream_every == 0 and (not a.dream_bank or os.path.exists(a.dream_bank)):
            dreams = dreams or Dreaming(a, m, sim, bm, seed + 50_000_000)
            dreams.step(opt)
        loss, se, tn = clip_loss(m, batch, step, bm)
        loss.backward()
        if dreams:
            dreams.add(opt)
        factor = rate_factor(a, step, share)
        opt.step(factor, step)
        step += 1
        log.add(loss, se, tn)
        log.line(step, factor)
        if time.time() - saved > a.save:
            save()
            saved = time.time()
    save()
    memory = torch.cuda.max_memory_allocated() / 2 ** 30 if a.device == "cuda" else 0
    print(f"{step} steps, {log.frames} frames in {time.time() - log.start:.0f} s, {memory:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
