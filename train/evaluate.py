"""Measures of a world model against the simulator, on worlds that training never saw: JSON and one contact sheet.

Seeds below 1e8 are never trained on. Decibels are of the mean squared error over all clips; "clip" and "se" are mean and
standard error of the clips' own decibels, "frame" is the mean over frames, as longtake eval world has it. Frames have values in [0, 1] there.
"""
import argparse
import json
import os
import struct
import time
import zlib

import torch
import torch.nn.functional as F

import checkpoint
import classify
import data
from batch import rollout
from simulator import LOOK, MIXED, RETURN, STROLL, UNDO, Sim
from tw import CFG, CONFIGS, TinyWorld, image, load, patchify, stride, unpatchify

HALF_TURN = 15


def psnr(se):
    """Decibels of squared errors of values in [-1, 1]."""
    return (10 * torch.log10(4 / se.clamp(min=1e-9)))


def score(se):
    """se [B,F] per frame."""
    clips = psnr(se.mean(1))
    n = max(2, len(clips))
    return dict(db=round(psnr(se.mean()).item(), 2), frame=round(psnr(se).mean().item(), 2), clip=round(clips.mean().item(), 2),
                se=round(clips.std().item() / n ** 0.5 if len(clips) > 1 else 0, 2), clips=len(clips))


def by_memory(se, seen):
    """Decibels of the pixels that were in view before and of those that never were, and how many the latter are: squared errors
    [B,F,tokens,192], seen [B,F,height,width] as of Sim.seen. "clip": mean over clips; "near": those seen from at most twice as far."""
    def part(mask):
        m = patchify(mask[..., None].expand(-1, -1, -1, -1, 3).float())
        return psnr((se * m).sum() / m.sum().clamp(min=1)), psnr((se * m).sum((1, 2, 3)) / m.sum((1, 2, 3)).clamp(min=1)).mean()
    values = dict(zip(("db", "clip", "near", "near_clip", "new", "new_clip"), (v for mask in (seen > 0, seen == 2, seen == 0) for v in part(mask))))
    return dict({k: round(v.item(), 2) for k, v in values.items()}, share_new=round((seen == 0).float().mean().item(), 4))


def gradient(x):
    """Mean absolute difference of neighbouring pixels [B,F] of patches [B,F,tokens,192]."""
    u = unpatchify(x.float())
    return (u[:, :, 1:] - u[:, :, :-1]).abs().mean((2, 3, 4)) + (u[:, :, :, 1:] - u[:, :, :, :-1]).abs().mean((2, 3, 4))


def returns(made, places, heads, apart=30, near=0.05):
    """Of every clip, the mean decibels of frames against the newest one at the same place and heading that is at least
    `apart` steps or turns older, and how many frames there are: [B,2]."""
    out, i = [], torch.arange(made.shape[1], device=made.device)
    for x, p, h in zip(made, places, heads):
        moved = ((p[1:] - p[:-1]).abs().sum(-1) > 1e-3) | (h[1:] != h[:-1])
        path = torch.cat((moved.new_zeros(1), moved)).cumsum(0)
        same = (torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") < near) & (h[:, None] == h) & (path[:, None] - path >= apart)
        new = same.any(1).nonzero()[:, 0]
        old = torch.where(same[new], i, -1).amax(1)
        se = torch.cat([(x[a] - x[b]).square().mean((1, 2)) for a, b in zip(new.split(256), old.split(256))]) if len(new) else x.new_zeros(0)
        out.append((psnr(se).mean() if len(new) else x.new_zeros(()), x.new_tensor(float(len(new)))))
    return torch.stack([torch.stack(v) for v in out])


def png(path, image):
    """image uint8 [height,width,3]"""
    h, w, _ = image.shape
    raw = b"".join(b"\0" + row.tobytes() for row in image.cpu().numpy())
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    checkpoint.write(path, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


class Evaluation:
    def __init__(self, a):
        self.a, self.out, self.rows, self.start = a, {}, [], time.time()
        self.sim = Sim(a.device)
        self.m = model(a)

    def note(self, name, value):
        self.out[name] = value
        print(f"[{time.time() - self.start:.0f}s] {name}: {json.dumps(value)}", flush=True)
        checkpoint.write(f"{self.a.out}-eval.json", json.dumps(dict(weights=self.a.weights, steps=self.a.steps, shift=self.a.shift, **self.out), indent=1).encode())

    def clips(self, seed, kind, frames, span=0, clean=True):
        """Clips in which the walker touches nothing (clean) and gets away by at least a cell (undo, return)."""
        b = self.a.clips
        w, tok, pose, act = self.sim.gen(seed, 6 * b, frames, kind=kind, span=span)
        head = pose[..., 2].round().long()
        xy = pose[..., :2] - pose[:, :1, :2]
        step = stride(act, head)
        step[:, 0] = 0
        good = (step.cumsum(1) - xy).norm(dim=-1).amax(1) < 0.05
        if kind in (UNDO, RETURN):
            good &= xy.norm(dim=-1).amax(1) > (1 if span >= 30 else 0.1)
        i = good.nonzero()[:b, 0] if clean else torch.arange(b, device=act.device)
        self.walk = w[i], pose[i]
        return dict(x=patchify(self.sim.render(w[i], pose[i], *reversed(image(self.m.c)))), tok=tok[i], act=act[i], head=head[i]), xy[i]

    def seen(self, given, first):
        """What of the frames of the last clips, from `first` on, the given ones (0: all before) have shown."""
        return self.sim.seen(*self.walk, given, *reversed(image(self.m.c)))[0][:, first:]

    @torch.no_grad()
    def strip(self, frames):
        """Rows of the contact sheet: some frames of the first clips; frames [B,F,tokens,192]."""
        rows, columns = self.a.sheet
        for b in range(min(rows, len(frames))):
            pick = torch.linspace(0, frames.shape[1] - 1, columns).round().long().to(frames.device)
            u = ((unpatchify(frames[b:b + 1, pick].float())[0].clamp(-1, 1) + 1) * 127.5).round().byte()
            self.rows.append(torch.cat(list(u), 1))

    def sheet(self):
        if self.rows:
            png(f"{self.a.out}-sheet.png", torch.cat(self.rows, 0))

    def roll(self, c, ctx, policy, **k):
        k = {**dict(steps=self.a.steps, shift=self.a.shift, lead=self.a.lead), **k}
        return rollout(self.m, **c, ctx=ctx, policy=policy, **k)

    @torch.no_grad()
    def forced(self, name, kind, frames, **k):
        c, xy = self.clips(1000, kind, frames, clean=False)
        made = self.roll(c, 1, "full", places=xy, forced=True, **k)
        each = (made - c["x"]).square()[:, 1:]
        se = each.mean((2, 3))
        self.note(name, dict(score(se), seen=by_memory(each, self.seen(0, 1)), bins=[round(psnr(se[:, i:i + 16].mean()).item(), 2) for i in range(0, se.shape[1], 16)],
                             sharp=round((gradient(made[:, 1:]).mean() / gradient(c["x"][:, 1:]).mean()).item(), 3)))

    @torch.no_grad()
    def memory(self, name, kind, span, ctx, frames, policies, parts):
        c, _ = self.clips(3000, kind, frames, span)
        seen = self.seen(ctx, ctx)
        self.strip(c["x"][:, ctx:])
        for policy in policies:
            made = self.roll(c, ctx, policy)
            each = (made - c["x"]).square()
            se, third = each.mean((2, 3)), (frames - ctx) // 3
            d = dict(score(se[:, ctx:]), seen=by_memory(each[:, ctx:], seen), thirds=[round(psnr(se[:, ctx + i * third:ctx + (i + 1) * third].mean()).item(), 2) for i in range(3)])
            for part, (low, high) in parts.items():
                d[part] = round(psnr(se[:, low:high].mean()).item(), 2)
            self.note(f"{name} {policy}", d)
            self.strip(made[:, ctx:])

    @torch.no_grad()
    def dream(self, frames, policy):
        """From one true frame: sharpness against the truth of the same walk, frames that hardly change, colours."""
        c, _ = self.clips(7000, STROLL if self.m.c["n_act"] > 7 else MIXED, frames, clean=False)
        made = self.roll(c, 1, policy, blocked=self.a.blocked)
        sharp = {}
        for at in (16, 64, 128, 256):
            if at <= frames:
                part = slice(at - 8, at)
                ratio = gradient(made[:, part]).mean(1) / gradient(c["x"][:, part]).mean()
                sharp[str(at)] = [round(ratio.mean().item(), 3), round(ratio.std().item() / len(ratio) ** 0.5, 3)]
        se = (made - c["x"]).square().mean((2, 3))
        spread = {str(at): [round(made[:, at - 8:at].mean().item(), 3), round(made[:, at - 8:at].std().item(), 3)] for at in (8, 64, frames)}
        truth = [round(c["x"].mean().item(), 3), round(c["x"].std().item(), 3)]
        self.note(f"dream {policy}", dict(sharp=sharp, first8=round(psnr(se[:, 1:9].mean()).item(), 2), spread=spread, truth=truth, clips=len(made)))
        if policy != "full":
            self.strip(made)

    @torch.no_grad()
    def strolls(self, policy, frames, **k):
        """From one true frame, with a player who turns away where a wall stops it: sharpness [mean, se] as a share of the mean
        over true strolls; the same of true walks by a player who knows no more of the walls ("blind": what a dream should
        have); and how many frames are flat (gradient below .35 of the mean)."""
        c, _ = self.clips(7000, STROLL if self.m.c["n_act"] > 7 else MIXED, frames, clean=False)
        made = self.roll(c, 1, policy, blocked=self.a.blocked, evade=True, **k)
        w, _, pose, act = self.sim.gen(7000, self.a.clips, frames, kind=STROLL)
        wall = self.sim.render(w, data.blind(self.sim, w, pose, act)[0], *reversed(image(self.m.c)))
        g, true, of_blind = gradient(made), gradient(c["x"]), gradient(patchify(wall))
        out, fair = {}, {}
        for at in (16, 64, 96, 256):
            if at <= frames:
                for to, v in ((out, g), (fair, of_blind)):
                    ratio = v[:, at - 8:at].mean(1) / true.mean()
                    to[str(at)] = [round(ratio.mean().item(), 3), round(ratio.std().item() / len(ratio) ** 0.5, 3)]
        flat = lambda v: round((v < 0.35 * true.mean()).float().mean().item(), 3)
        return dict(sharp=out, blind=fair, blind_mean=round((of_blind[:, 8:].mean() / true.mean()).item(), 3), flat=flat(g[:, 8:]),
                    flat_blind=flat(of_blind[:, 8:]), flat_truth=flat(true)), made

    @torch.no_grad()
    def sweep(self):
        """Ways to sample in few steps: (steps, shift, lead)."""
        c, xy = self.clips(1000, MIXED, 33, clean=False)
        for steps, shift, lead in ((4, 1, 0), (4, 1, 0.5), (4, 0.6, 0), (4, 0.6, 0.5), (4, 0.35, 0), (2, 1, 0), (2, 0.6, 0), (8, 1, 0)):
            k = dict(steps=steps, shift=shift, lead=lead)
            made = self.roll(c, 1, "full", places=xy, forced=True, **k)
            se = (made - c["x"]).square().mean((2, 3))[:, 1:]
            value, _ = self.strolls("window:32", min(96, int(96 * self.a.scale) + 8), **k)
            self.note(f"sweep {steps} {shift} {lead}", dict(next=score(se)["db"], **value))

    @torch.no_grad()
    def long(self, policy, frames, at_once=64, ring=1024):
        """Long strolls with the newest `ring` frames in store: sharpness and colours late against early, and what known
        places look like (returns)."""
        kind, parts, again = STROLL if self.m.c["n_act"] > 7 else MIXED, [], []
        c, _ = self.clips(7000, kind, frames, clean=False)
        for i in range(0, self.a.clips, at_once):
            track, part = [], {k: v[i:i + at_once] for k, v in c.items()}
            made = self.roll(part, 1, policy, blocked=self.a.blocked, evade=True, track=track, ring=ring)
            again.append(returns(made, *track[:2]))
            parts.append(torch.stack([torch.stack((gradient(made[:, at - 50:at]).mean(1), made[:, at - 50:at].mean((1, 2, 3)), made[:, at - 50:at].std((1, 2, 3))))
                                      for at in (100, 300, 1000, 2000, frames) if at <= frames]))
            if not i:
                self.strip(made)
            self.note(f"long {policy}, clips", i + len(made))
        parts, again = torch.cat(parts, 2), torch.cat(again)
        names, n = [at for at in (100, 300, 1000, 2000, frames) if at <= frames], parts.shape[2]
        out = {str(at): {k: [round(v[j].mean().item(), 4), round(v[j].std().item() / n ** 0.5, 4)] for j, k in enumerate(("sharp", "mean", "std"))}
               for at, v in zip(names, parts)}
        known = again[again[:, 1] > 0, 0]
        self.note(f"long {policy}", dict(out, clips=n, revisits=dict(
            db=round(known.mean().item(), 2), se=round(known.std().item() / max(1, len(known)) ** 0.5, 2), clips=len(known),
            frames=int(again[:, 1].sum()))))

    @torch.no_grad()
    def press(self, policy):
        """From one true frame 30 steps forward into whatever is there, then half a turn, then 10 steps."""
        frames = 1 + 30 + HALF_TURN + 10
        c, _ = self.clips(7500, MIXED, frames, clean=False)
        c["act"][:, 1:31], c["act"][:, 31:31 + HALF_TURN], c["act"][:, 31 + HALF_TURN:] = 1, 4, 1
        c["act"][:, 0] = 0
        c["head"] = (c["head"][:, :1] + (c["act"] == 4).cumsum(1)) % 30
        made = self.roll(c, 1, policy, blocked=self.a.blocked)
        change, g = (made[:, 1:] - made[:, :-1]).abs().mean((2, 3)), gradient(made)
        usual = gradient(c["x"][:, :1]).mean()
        turn = change[:, 30:30 + HALF_TURN].mean(1)
        self.note(f"press {policy}", dict(
            pressed=round((g[:, 26:31].mean() / usual).item(), 3), turned=round((g[:, 42:46].mean() / usual).item(), 3),
            walked=round((g[:, -4:].mean() / usual).item(), 3), turning_change=round(turn.mean().item(), 4),
            locked=int(((turn < 0.03) | (g[:, -4:].mean(1) < 0.35 * usual)).sum()), clips=len(made)))
        self.strip(made)

    def obey(self):
        """A turn on the spot from text alone: are wall, floor and sky of the start room those of the prompt?"""
        a, dev = self.a, self.a.device
        net = classify.load(a.judge, dev) if a.judge else classify.train(self.sim, dev, a.classifier)
        x, want, _ = classify.turns(self.sim, 20000, 512 if dev == "cuda" else 4)
        x1, want1 = x[:, 0], want
        truth, first = classify.right(classify.judge(net, x), want), classify.right(net(x1)[0], want1)
        many = 4 * a.clips
        x, want, (tok, act, head) = classify.turns(self.sim, 30000, many)
        made = rollout(self.m, patchify(torch.zeros(many, classify.VIEWS, *image(self.m.c), 3, dtype=torch.uint8, device=dev)), tok, act, head, 0,
                       "full", steps=a.steps, shift=a.shift)
        u = F.interpolate(unpatchify(made.float()).permute(0, 1, 4, 2, 3).flatten(0, 1), (64, 64), mode="area").unflatten(0, made.shape[:2])
        whole, one = classify.right(classify.judge(net, u), want), classify.right(net(u[:, 0])[0], want)
        def shares(r):
            return dict({k: round(r[:, i].float().mean().item(), 4) for i, k in enumerate(classify.GROUPS)},
                        all=round(r.all(1).float().mean().item(), 4), clips=len(r))
        self.note("obey", dict(truth_turn=shares(truth), truth_view=shares(first), made_turn=shares(whole), made_view=shares(one)))
        self.strip(made)

    def all(self):
        a, k = self.a, (lambda n: max(4, int(n * self.a.scale)))
        tests = a.tests.split(",")
        if "next" in tests:
            self.forced("next mixed", MIXED, k(80))
            if self.m.c["n_act"] > 7:
                self.forced("next stroll", STROLL, k(80))
            for steps in (2, 1):
                self.forced(f"next mixed in {steps}", MIXED, k(80), steps=steps)
        s = k(30)
        if "look" in tests:
            self.memory("look", LOOK, s, s + 1, 2 * s + 1, ["full"], {})
        s = k(40)
        if "undo" in tests:
            self.memory("undo", UNDO, s, s + 1, 2 * s + 1, ["full", "pose", "window:16"], dict(last5=(2 * s - 4, 2 * s + 1)))
        if "return" in tests:
            self.memory("return", RETURN, s, s + HALF_TURN + 1, 2 * s + 31, ["full", "pose", "window:16"],
                        dict(back=(s + 16, 2 * s + 16), turn=(2 * s + 16, 2 * s + 31)))
        if "dream" in tests:
            for policy in ("window:32", "pose"):
                self.dream(k(256), policy)
        if "strolls" in tests:
            for policy, steps in (("window:32", a.steps), ("pose", a.steps), ("pose", 2)):
                value, made = self.strolls(policy, k(256), steps=steps)
                self.note(f"strolls {policy}" + (f" in {steps}" if steps != a.steps else ""), value)
                self.strip(made)
        if "press" in tests:
            for policy in ("window:32", "pose"):
                self.press(policy)
        self.sheet()
        if "obey" in tests:
            self.obey()
            self.sheet()
        if "sweep" in tests:
            self.sweep()
        if "long" in tests:
            self.long("pose", k(3000))
            self.sheet()
        self.note("seconds", round(time.time() - self.start))


def model(a):
    if a.weights.endswith(".safetensors"):
        sd = load(a.weights)
        m = TinyWorld(CONFIGS[a.config] if "place_in" in sd else CFG)
        m.load_state_dict(sd)
    else:
        m = TinyWorld(CONFIGS[a.config])
        checkpoint.load(list(m.parameters()), a.weights)
    return m.to(a.device).eval()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("weights", help=".safetensors, or the stem of a checkpoint")
    ap.add_argument("--config", choices=CONFIGS, default="tinyworld", help="of weights that are told their place")
    ap.add_argument("--out", default=os.environ.get("OUT", ".") + "/train", help="stem of the files to write")
    ap.add_argument("--clips", type=int, default=64)
    ap.add_argument("--steps", type=int, default=4)
    ap.add_argument("--shift", type=float, default=1.0)
    ap.add_argument("--lead", type=float, default=0.0, help="see Batch.sample")
    ap.add_argument("--judge", default="", help="weights of the judge; empty: train one")
    ap.add_argument("--blocked", type=float, default=0.02)
    ap.add_argument("--scale", type=float, default=1, help="of the lengths, for a dry run")
    ap.add_argument("--classifier", type=int, default=1500, help="training steps of the judge of prompts")
    ap.add_argument("--tests", default="next,look,undo,return,strolls,press,obey,sweep,long")
    ap.add_argument("--sheet", type=int, nargs=2, default=(2, 16), help="clips and frames of each test on the contact sheet")
    ap.add_argument("--device", default="cuda")
    a = ap.parse_args()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    Evaluation(a).all()


if __name__ == "__main__":
    main()
