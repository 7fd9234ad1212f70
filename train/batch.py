"""Many timelines at once, for evaluation: the sampler of infer.py and posecache.py with fixed shapes, so that a GPU replays
one captured pass. Policies: "full", "window:N", "pose" (16 recent frames and the 2 older ones nearest in place).
"""
import torch
import torch.nn.functional as F

from infer import FAR
from posecache import HEADINGS
from tw import angles, hw_pos, ln, rms, rope, schedule, seq_angles, stride

TURNS = torch.tensor([0, 0, 0, -1, 1, -1, 1, 0, 0])  # change of heading by action
CLAMP = 88  # no key is read as if it were older
POSE = dict(gamma=5.0, sigma_xy=0.15, sigma_heading=0.8, move=4, min_age=3, top=2, window=16, w_move_min=0.3, log_w_min=-4.5)


class Batch:
    """B timelines of at most `frames` frames; push true frames, sample new ones.

    blocked: mean absolute change (pixels in [-1,1]) below which a step is taken to have failed at a wall.
    """

    def __init__(self, m, tok, frames, policy="full", blocked=0.0, ring=None):
        self.m, self.blocked, self.dev, self.B = m, blocked, tok.device, tok.shape[0]
        kind, _, size = policy.partition(":")
        self.kind = kind
        self.view = {"full": frames - 1, "window": int(size or 0), "pose": POSE["window"] + POSE["top"]}[kind]
        self.slots = ring or (self.view if kind == "window" else frames)
        c = m.c
        self.L, self.H, self.hd, self.N = c["layers"], c["heads"], c["d"] // c["heads"], m.tokens
        self.real = torch.bfloat16 if self.dev.type == "cuda" else torch.get_default_dtype()
        def room(n):
            return torch.zeros(self.L, self.B, n, self.H, self.N, self.hd, device=self.dev, dtype=self.real)
        self.keys, self.values = room(self.slots), room(self.slots)  # before rotation
        shape = (self.L, self.B, self.H, (self.view + 1) * self.N, self.hd)
        self.seen_k, self.seen_v = (torch.zeros(shape, device=self.dev, dtype=self.real) for _ in range(2))
        self.bias = torch.zeros(self.B, 1, 1, (self.view + 1) * self.N, device=self.dev, dtype=self.real)
        self.born = torch.full((self.slots,), -1, device=self.dev)  # frame in each slot
        self.places = torch.zeros(self.B, self.slots, 2, device=self.dev)
        self.heads_ = torch.zeros(self.B, self.slots, device=self.dev)
        self.n, self.place, self.last = 0, torch.zeros(self.B, 2, device=self.dev), None
        self.own = seq_angles(torch.zeros(1, device=self.dev), c)
        with torch.no_grad():
            ctx, mask = m.text(tok)
            self.mask = mask.to(self.real)
            self.cross = [(a.heads(rms(a.k(ctx), a.norm_k)).to(self.real), a.heads(a.v(ctx)).to(self.real))
                          for a in (b.cross_attn for b in m.blocks)]
        self.inputs = dict(x=torch.zeros(self.B, self.N, m.values, device=self.dev), t=torch.zeros(self.B, 1, device=self.dev),
                           act=torch.zeros(self.B, 1, dtype=torch.long, device=self.dev),
                           head=torch.zeros(self.B, 1, dtype=torch.long, device=self.dev),
                           place=torch.zeros(self.B, 1, 2, device=self.dev))
        self.new_k, self.new_v = (torch.zeros(self.L, self.B, self.H, self.N, self.hd, device=self.dev, dtype=self.real) for _ in range(2))
        self.graph = None

    def forward(self):
        """One pass over the buffers: reads inputs and the view, writes the frame's own keys, returns clean patches."""
        i, m = self.inputs, self.m
        pf = m.features(i["place"], i["head"])
        h, e, e6 = m.embed(i["x"][:, None], i["t"], i["act"], i["head"], pf)
        h, e6 = h[:, 0], e6[:, 0]
        for layer, b in enumerate(m.blocks):
            mod = (e6 + b.modulation)[:, :, None]
            q, k, v = b.self_attn.qkv(ln(h) * (1 + mod[:, 1]) + mod[:, 0])
            q, k = b.placed(q, k, pf)
            self.new_k[layer], self.new_v[layer] = k, v
            self.seen_k[layer][:, :, -self.N:], self.seen_v[layer][:, :, -self.N:] = rope(k, self.own), v
            y = F.scaled_dot_product_attention(rope(q, self.own).to(self.real), self.seen_k[layer], self.seen_v[layer],
                                               attn_mask=self.bias.expand(-1, self.H, self.N, -1))
            h = h + b.self_attn.o(y.to(h.dtype).transpose(1, 2).flatten(2)) * mod[:, 2]
            c = b.cross_attn
            q = c.heads(rms(c.q(b.norm3(h)), c.norm_q)).to(self.real)
            y = F.scaled_dot_product_attention(q, *self.cross[layer], attn_mask=self.mask.expand(-1, self.H, self.N, -1))
            h = h + c.o(y.to(h.dtype).transpose(1, 2).flatten(2))
            h = h + b.ffn2(F.gelu(b.ffn1(ln(h) * (1 + mod[:, 4]) + mod[:, 3]), approximate="tanh")) * mod[:, 5]
        return m.out(h[:, None], e)[:, 0]

    @torch.no_grad()
    def run(self, x, t, place=None):
        self.inputs["x"].copy_(x)
        self.inputs["t"].fill_(t)
        if place is not None:
            self.inputs["place"].copy_(place[:, None])
        if self.dev.type != "cuda":
            return self.forward()
        if self.graph is None:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self.forward()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.result = self.forward()
        self.graph.replay()
        return self.result.clone()

    @torch.no_grad()
    def look(self, act, head):
        """Choose what the next frame sees."""
        self.inputs["act"].copy_(act[:, None])
        self.inputs["head"].copy_(head[:, None])
        self.target = self.place + (stride(act, head) if self.n else 0)
        self.inputs["place"].copy_(self.target[:, None])
        age = (self.n - self.born).expand(self.B, -1)
        valid = (self.born >= 0).expand(self.B, -1)
        bias = torch.zeros(self.B, self.slots, device=self.dev)
        t = -age.clamp(max=CLAMP).float()
        index = torch.arange(self.view, device=self.dev).expand(self.B, -1)
        if self.kind == "pose":
            turn = (self.heads_ - head[:, None]).abs()
            turn = torch.minimum(turn, HEADINGS - turn)
            far = (self.places - self.target[:, None]).square().sum(-1)
            log_w = -far / (2 * POSE["sigma_xy"] ** 2) - turn ** 2 / (2 * POSE["sigma_heading"] ** 2)
            match = valid & (age >= POSE["min_age"]) & (log_w > POSE["log_w_min"])
            recent = valid & (age <= POSE["window"])
            rank = torch.where(recent, 1e6 - age, torch.where(match, log_w - 1e-6 * self.born, torch.full_like(log_w, FAR)))
            index = rank.topk(min(self.view, self.slots), -1).indices
            w = torch.where(match, log_w.exp(), torch.zeros_like(log_w))
            valid, bias = recent | match, POSE["gamma"] * w
            t = torch.where(w > POSE["w_move_min"], torch.full_like(t, -float(POSE["move"])), t)
        bias = torch.where(valid, bias, torch.full_like(bias, FAR)).gather(1, index)
        many = index.shape[1]
        self.bias[..., :many * self.N] = bias.repeat_interleave(self.N, 1)[:, None, None].to(self.real)
        if many < self.view:
            self.bias[..., many * self.N:-self.N] = FAR
        row, column = hw_pos(self.dev, self.m.c)
        cs = angles(t.gather(1, index)[..., None].expand(-1, -1, self.N), row.expand(self.B, many, -1), column.expand(self.B, many, -1), self.m.c)
        batch = torch.arange(self.B, device=self.dev)[:, None]
        for layer in range(self.L):
            k = self.keys[layer][batch, index] if self.kind == "pose" else self.keys[layer][:, :many]
            v = self.values[layer][batch, index] if self.kind == "pose" else self.values[layer][:, :many]
            self.seen_k[layer][:, :, :many * self.N] = rope(k, cs[:, :, None]).transpose(1, 2).flatten(2, 3)
            self.seen_v[layer][:, :, :many * self.N] = v.transpose(1, 2).flatten(2, 3)

    @torch.no_grad()
    def keep(self, x, head, act, place=None):
        """The clean pass: frame x [B,tokens,192] becomes context, made at `place` or where the actions have led. Returns which
        timelines' step failed, if that is looked for."""
        stopped = None
        if place is None:
            place = self.target
            if self.blocked and self.last is not None:
                still = (x - self.last).abs().mean((1, 2)) < self.blocked
                stopped = still & ((place - self.place).abs().sum(-1) > 0)
                place = torch.where(still[:, None], self.place, place)
        self.run(x, 0.0, place)
        slot = self.n % self.slots
        self.keys[:, :, slot], self.values[:, :, slot] = self.new_k, self.new_v
        self.born[slot] = self.n
        self.places[:, slot], self.heads_[:, slot] = place, head.float()
        self.place, self.last = place, x
        self.n += 1
        return stopped

    @torch.no_grad()
    def sample(self, eps, steps, shift, lead=0.0):
        """Denoise a frame from noise eps [B,tokens,192]; look comes before. lead: from the third step on estimates go on by
        that share of their change (a multistep solver of second order has .5)."""
        ts, z, last = schedule(steps, shift), eps, None
        for i in range(steps):
            x0 = self.run(z, ts[i]).clamp(-1, 1)
            if lead and i > 1:
                x0, last = (x0 + lead * (x0 - last)).clamp(-1, 1), x0
            else:
                last = x0
            z = (1 - ts[i + 1]) * x0 + ts[i + 1] * (z - (1 - ts[i]) * x0) / ts[i]
        return x0


@torch.no_grad()
def rollout(m, x, tok, act, head, ctx, policy, steps=4, shift=1.0, seed=0, places=None, forced=False, blocked=0.0, lead=0.0, evade=False, track=None, ring=None):
    """Frames [B,T,tokens,192]: ctx true ones, then generated ones; forced: every frame is made after the true ones before it.

    evade: a player (or those of [B]) who was stopped turns right for seven frames instead of what the actions say. track: a list that gets the
    places [B,T,2] and headings [B,T] by dead reckoning, and the actions [B,T]. ring: how many frames are stored; None: all.
    """
    r, out, path = Batch(m, tok, act.shape[1], policy, blocked, ring), [], []
    turning, heading = torch.zeros_like(act[:, 0]), head[:, 0]
    g = torch.Generator(device=x.device).manual_seed(seed)
    for i in range(act.shape[1]):
        a = torch.where(turning > 0, torch.full_like(turning, 4), act[:, i])
        if evade is not False:
            heading = (heading + TURNS.to(a.device)[a]) % HEADINGS if i else heading
        else:
            heading = head[:, i]
        r.look(a, heading)
        eps = torch.randn(x.shape[0], m.tokens, m.values, generator=g, device=x.device)
        made = x[:, i] if i < ctx else r.sample(eps, steps, shift, lead)
        stopped = r.keep(x[:, i] if forced or i < ctx else made, heading, a, None if places is None else places[:, i])
        turning = (turning - 1).clamp(min=0)
        if evade is not False and stopped is not None and i >= ctx:
            turning = torch.where(stopped & evade & (turning == 0), torch.full_like(turning, 7), turning)
        out.append(made)
        path.append((r.place, heading.float(), a))
    if track is not None:
        track += [torch.stack(x, 1) for x in zip(*path)]
    return torch.stack(out, 1)
