"""Sampler with a KV cache, keys stored before RoPE, and its variants.

History policies: dense, window (with anchor frames), stride, TempCache (tempcache.py). Selections: AnnSA (self-
attention over the nearest past keys, exact or by hashing), AnnCA (cross-attention to the nearest prompt tokens).
"""
import torch
import torch.nn.functional as F

from tempcache import TempCache
from tw import angles, hw_pos, ln, patchify, rms, rope, schedule, seq_angles, stride, wide

FAR = -1e9  # the logit of a key that must not be read


def hyperplanes(seed, bits, dev):
    g = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(64, bits, generator=g).to(dev)


def hamming(q, k, planes):
    """Number of equal minus number of unequal sign bits of every query and key."""
    return torch.sign(q.float() @ planes) @ torch.sign(k.float() @ planes).transpose(-1, -2)


class Roller:
    """One batch of timelines: push true frames, sample new ones.

    policy: dict(kind="dense" | "window" (n, anchor) | "stride" (k, recent) | "temp" (tau, recent, match, pos, scope))
    attn:   None or dict(kind="topk" | "lsh", frac, bits)      cross: None or dict(kind="exact" | "lsh", k, bits)
    """

    def __init__(self, m, tok, policy=None, clamp=88, attn=None, dtype=None, cross=None, bias=True):
        self.m, self.pol, self.clamp, self.attn = m, policy or dict(kind="dense"), clamp, attn
        self.dt, self.cross, self.bias = dtype or torch.get_default_dtype(), cross, bias
        self.B, self.dev, self.L = tok.shape[0], tok.device, len(m.blocks)
        self.n = 0  # frames pushed so far = temporal index of the next frame
        self.stat, self.n_tok = {}, []
        # Where the last frame was made, and where the actions want the next one to be: dead reckoning, walls unknown.
        self.place = self.target = torch.zeros(self.B, 2, device=self.dev)
        with torch.no_grad():
            c, mask = m.text(tok)
            self.mask = wide(mask)
            self.cx = []  # per layer: keys and values of the prompt
            for b in m.blocks:
                a = b.cross_attn
                self.cx.append((a.heads(rms(a.k(c), a.norm_k)), a.heads(a.v(c))))
        self.rec = [[] for _ in range(self.L)]  # per layer: recent dense frames (keys, values, frame index)
        self.rep = [TempCache(self.pol, self.dev, m.c) for _ in range(self.L)]
        self.ph, self.pw = hw_pos(self.dev, m.c)

    def aim(self, act, head):
        """Set the place of the next frame; the first frame is where it is."""
        self.target = self.place + stride(act, head) if self.n else self.place

    def build(self):
        """Rotate the cached keys for frame self.n: the query sits at time 0, keys at -age, no older than the clamp."""
        self.cur = []
        for layer in range(self.L):
            keys, values, biases = [], [], []
            rep = self.rep[layer]
            if not rep.empty():
                t = (rep.P[..., 0] - self.n).clamp(min=-self.clamp)
                keys.append(rope(rep.K, angles(t, rep.P[..., 1], rep.P[..., 2], self.m.c)))
                values.append(rep.V)
                weight = rep.C.clamp(min=1).log() if self.bias else torch.zeros_like(rep.C)
                biases.append(torch.where(rep.C > 0, weight, torch.full_like(rep.C, FAR)))
            if self.rec[layer]:
                k = torch.cat([x[0] for x in self.rec[layer]], 2)
                t = torch.tensor([max(x[2] - self.n, -self.clamp) for x in self.rec[layer]], device=self.dev)
                keys.append(rope(k, seq_angles(t, self.m.c)))
                values.append(torch.cat([x[1] for x in self.rec[layer]], 2))
                biases.append(torch.zeros(k.shape[:3], device=self.dev))
            bias = torch.cat(biases, 2) if not rep.empty() else None
            self.cur.append((torch.cat(keys, 2), torch.cat(values, 2), bias) if keys else None)
        self.own = seq_angles(torch.zeros(1, device=self.dev), self.m.c)

    def attend(self, layer, q, k, v):
        """Self-attention of one frame's q, k, v [B,heads,tokens,64] (not rotated) over the cache and itself."""
        qr, kr, bias = rope(q, self.own), rope(k, self.own), None
        c = self.cur[layer]
        if c is not None:
            kr, v = torch.cat((c[0], kr), 2), torch.cat((c[1], v), 2)
            if c[2] is not None:
                bias = F.pad(c[2], (0, self.m.tokens))[:, :, None]
        if self.attn is not None:
            return self.attend_nearest(layer, qr, kr, v, bias)
        if bias is not None:
            bias = bias.to(qr.dtype).expand(-1, -1, self.m.tokens, -1)
        return F.scaled_dot_product_attention(qr, kr, v, attn_mask=bias)

    def attend_nearest(self, layer, qr, kr, v, bias):
        """AnnSA: each query reads a fraction of the past keys, ranked by logit or hash bits, and its own frame."""
        scores = (qr @ kr.transpose(-1, -2)).float() / 8 + (0 if bias is None else bias)
        past = scores.shape[-1] - self.m.tokens
        keep = torch.zeros_like(scores, dtype=torch.bool)
        budget = max(1, int(self.attn["frac"] * past)) if past else 0
        if budget:
            if self.attn["kind"] == "topk":
                rank = scores[..., :past]
            else:
                rank = hamming(qr, kr[:, :, :past], hyperplanes(layer, self.attn["bits"], self.dev))
                rank = rank + torch.rand_like(rank) * 0.1  # ties fall at random
            keep[..., :past].scatter_(-1, rank.topk(budget, -1).indices, True)
        keep[..., past:] = True
        return scores.masked_fill(~keep, -1e30).softmax(-1).to(v.dtype) @ v

    def xattend(self, layer, q):
        """Cross-attention to the prompt; with AnnCA to the union of the prompt tokens nearest to any query."""
        keys, values = self.cx[layer]
        mask = self.mask
        if self.cross is not None:
            scores = (q @ keys.transpose(-1, -2)).float() / 8 + mask
            rank = scores
            if self.cross["kind"] != "exact":
                rank = hamming(q, keys, hyperplanes(100 + layer, self.cross["bits"], self.dev)) + mask
            near = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, rank.topk(self.cross["k"], -1).indices, True)
            valid = mask[:, 0, 0] > -1
            keep = near.any(2).any(1) & valid
            self.stat.setdefault("ca", []).append((keep.float().sum(-1) / valid.sum(-1)).mean().item())
            mask = torch.where(keep, 0.0, FAR)[:, None, None]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask.to(q.dtype))

    def block(self, layer, h, e6, write=False, pf=None):
        """One transformer block on one frame: h [B,tokens,d], e6 [B,6,d]; write notes its keys and values in self.new."""
        b = self.m.blocks[layer]
        e = e6 + b.modulation

        def mod(i):
            return e[:, i, None]

        q, k, v = (z.to(self.dt) for z in b.self_attn.qkv(ln(h) * (1 + mod(1)) + mod(0)))
        q, k = b.placed(q, k, pf)
        if write:
            self.new.append((k, v))
        y = self.attend(layer, q, k, v).to(h.dtype)
        h = h + b.self_attn.o(y.transpose(1, 2).flatten(2)) * mod(2)
        c = b.cross_attn
        q = c.heads(rms(c.q(b.norm3(h)), c.norm_q)).to(self.cx[layer][0].dtype)
        h = h + c.o(self.xattend(layer, q).transpose(1, 2).flatten(2))
        return h + b.ffn2(F.gelu(b.ffn1(ln(h) * (1 + mod(4)) + mod(3)), approximate="tanh")) * mod(5)

    @torch.no_grad()
    def run(self, x, t, act, head, write=False):
        """One forward pass: patches x [B,tokens,192] at noise level t -> predicted clean patches, not clamped."""
        level = torch.full((self.B, 1), float(t), device=self.dev)
        pf = self.m.features(self.target[:, None], head[:, None])
        h, e, e6 = self.m.embed(x[:, None], level, act[:, None], head[:, None], pf)
        h, e6 = h[:, 0], e6[:, 0]
        for layer in range(self.L):
            h = self.block(layer, h, e6, write, pf)
        return self.m.out(h[:, None], e)[:, 0]

    def push(self, x, act, head, tc=0.0, built=False):
        """The clean pass: write the keys and values of frame x into the cache, then let the policy forget or merge."""
        if not built:
            self.aim(act, head)
            self.build()
        self.new = []
        self.run(x, tc, act, head, write=True)
        for layer, (k, v) in enumerate(self.new):
            self.rec[layer].append((k, v, self.n))
        self.forget()
        self.n += 1
        self.place = self.target
        merged = sum(rep.used().sum().item() / (self.B * 4) for rep in self.rep) / self.L
        self.n_tok.append(merged + len(self.rec[0]) * self.m.tokens)

    @torch.no_grad()
    def forget(self):
        p, frames = self.pol, len(self.rec[0])
        if p["kind"] == "stride":
            if frames > p["recent"] and self.rec[0][-p["recent"] - 1][2] % p["k"]:
                for layer in range(self.L):
                    self.rec[layer].pop(-p["recent"] - 1)
            return
        limit = {"dense": 10**9, "window": p.get("n"), "temp": p.get("recent", 2)}[p["kind"]]
        if frames <= limit:
            return
        i = min(p.get("anchor", 0), frames - 1) if p["kind"] == "window" else 0
        for layer in range(self.L):
            old = self.rec[layer].pop(i)
            if p["kind"] == "temp":
                self.rep[layer].merge(*old)

    def sample(self, act, head, steps=4, gen=None, tc=0.0, shift=3.0, eps=None):
        """Make the next frame from noise (eps, or drawn from gen) and push it; returns x0 [B,tokens,192] in [-1,1]."""
        self.aim(act, head)
        self.build()
        ts = schedule(steps, shift)
        z = torch.randn(self.B, self.m.tokens, self.m.values, generator=gen).to(self.dev) if eps is None else eps
        for i in range(steps):
            x0 = wide(self.run(z, ts[i], act, head)).clamp(-1, 1)
            # Euler: the noise that z holds, put on x0 again at the next level.
            z = (1 - ts[i + 1]) * x0 + ts[i + 1] * (z - (1 - ts[i]) * x0) / ts[i]
        self.push(x0, act, head, tc, built=True)
        return x0


def rollout(m, clip, ctx, frames, policy=None, steps=4, seed=0, tc=0.0, roller=Roller, shift=3.0, **kw):
    """Generate frames ctx..frames-1 after ctx true frames; returns patches [B,frames,tokens,192] and the roller."""
    vid, tok, act, head = clip[:4]
    x = patchify(vid)
    r, out = roller(m, tok, policy, **kw), []
    g = torch.Generator().manual_seed(seed)
    for i in range(frames):
        if i < ctx:
            r.push(x[:, i], act[:, i], head[:, i], tc)
            out.append(x[:, i])
            torch.randn(x.shape[0], *x.shape[2:], generator=g)  # so that frame i has the same noise for every ctx
        else:
            out.append(r.sample(act[:, i], head[:, i], steps, g, tc, shift))
    return torch.stack(out, 1), r
