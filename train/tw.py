"""The tiny causal video-diffusion transformer ("tinyworld").

In:  patches of RGB frames [batch, frames, tokens, 192] in [-1, 1] (64x64 pixels: 64 tokens, 128x128: 256), a noise level
     per frame, an action and a heading per frame, 128 prompt token ids.
Out: the predicted clean patches (x0), same shape.

Blocks are those of causal Wan: LN -> shift/scale -> self-attention (RMSNorm on q and k over the full width, 3-D
RoPE) -> gate; affine LN -> cross-attention; LN -> shift/scale -> FFN -> gate. Training runs on a GPU (torch >= 2.6:
flex_attention); sampling also runs on the CPU with torch 1.13. Precision follows torch's default dtype: with
set_default_dtype(float64) and model.double() everything is float64.
"""
import json
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

try:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
except ImportError:  # torch 1.13: sampling only
    create_block_mask = flex_attention = None


def wide(x):
    """At least float32: bf16 is widened, float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


if not hasattr(F, "rms_norm"):
    def _rms_norm(x, shape, weight, eps):
        return x * torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps).to(x.dtype) * weight
    F.rms_norm = _rms_norm

if not hasattr(F, "scaled_dot_product_attention"):
    def _attention(q, k, v, attn_mask=None):
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            scores = scores + attn_mask
        return scores.softmax(-1) @ v
    F.scaled_dot_product_attention = _attention

CFG = dict(d=256, layers=6, heads=4, ffn=1024, patch=8, size=64, n_act=7, n_head=30, vocab=128, text_len=128,
           text_d=128, text_layers=2, text_heads=4, rope_split=[24, 20, 20], theta_t=256.0, theta_hw=16.0,
           freq_dim=256, shift=3.0)

# The next weights: strafes, and the dead-reckoned position as an input (waves: wavelengths in cells).
STEP = 0.22
PLACED = dict(CFG, n_act=9, place_waves=[24.0, 12.0, 6.0, 3.0, 1.5, 0.75])

# The larger sibling: four times the pixels and tokens, twice the width; its patches lie half as far apart (grow.py).
HD = dict(PLACED, d=512, heads=8, ffn=2048, size=128, rope_unit=0.5, trained_frames=64)

CONFIGS = {"first": CFG, "tinyworld": PLACED, "world-hd": HD}

# Prompt token ids that bind a clause to its region (vocab.py).
FIRST_DIRECTION, LAST_DIRECTION, FULL_STOP = 16, 24, 11


def image(c):
    """Height and width of the frames of a configuration, whose size is one number or both."""
    return (c["size"], c["size"]) if isinstance(c["size"], int) else tuple(c["size"])


def grid(c):
    """Rows and columns of patches."""
    height, width = image(c)
    return height // c["patch"], width // c["patch"]


def patchify(v):
    """Frames [B,T,height,width,3] (uint8, or float in [-1,1]) -> patches [B,T,tokens,192]; inside a patch (py, px, channel)."""
    batch, frames, height, width = v.shape[:4]
    x = v.to(torch.get_default_dtype()) / 127.5 - 1 if v.dtype == torch.uint8 else v
    x = x.view(batch, frames, height // 8, 8, width // 8, 8, 3).permute(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(batch, frames, height * width // 64, 192)


def unpatchify(x, rows=0):
    """The inverse of patchify, without the change to uint8; rows of patches: 0 for square frames."""
    batch, frames, tokens = x.shape[:3]
    rows = rows or math.isqrt(tokens)
    x = x.view(batch, frames, rows, tokens // rows, 8, 8, 3).permute(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(batch, frames, rows * 8, tokens // rows * 8, 3)


def rms(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def ln(x):
    return F.layer_norm(x, (x.shape[-1],), eps=1e-6)


def rope(x, cs):
    """Rotate x [...,S,D] by cs [...,S,D/2,2] (cos, sin); pairs are interleaved, as in Wan."""
    pairs = wide(x).unflatten(-1, (-1, 2))
    c, s = cs[..., 0], cs[..., 1]
    first = pairs[..., 0] * c - pairs[..., 1] * s
    second = pairs[..., 0] * s + pairs[..., 1] * c
    return torch.stack((first, second), -1).flatten(-2).to(x.dtype)


def angles(pt, ph, pw, cfg=CFG):
    """Positions (time, row, column; same shape) -> cos and sin [...,32,2] of the 12 + 10 + 10 angles of a head."""
    real, parts, unit = torch.get_default_dtype(), [], cfg.get("rope_unit", 1.0)
    for pos, n, theta, apart in zip((pt, ph, pw), cfg["rope_split"], (cfg["theta_t"], cfg["theta_hw"], cfg["theta_hw"]), (1.0, unit, unit)):
        freq = theta ** (-torch.arange(n // 2, device=pos.device, dtype=real) / (n // 2))
        parts.append((pos.to(real) * apart)[..., None] * freq)
    a = torch.cat(parts, -1)
    return torch.stack((a.cos(), a.sin()), -1)


def hw_pos(dev, cfg=CFG):
    """Row and column of the tokens of a frame."""
    rows, columns = grid(cfg)
    i = torch.arange(rows * columns, device=dev)
    return i // columns, i % columns


def seq_angles(pos_t, cfg=CFG):
    """Temporal positions [F] -> angles of all their tokens [F*tokens,32,2]."""
    ph, pw = hw_pos(pos_t.device, cfg)
    n = pos_t.shape[0]
    return angles(pos_t[:, None].expand(n, len(ph)).reshape(-1), ph.repeat(n), pw.repeat(n), cfg)


def azimuths(head, columns=8):
    """Headings [...] -> viewing azimuth [...,columns] of the patch columns, in radians; 0 is north, growing to the east."""
    real, half = torch.get_default_dtype(), columns / 2
    column = torch.atan((torch.arange(columns, device=head.device, dtype=real) - half + 0.5) / half * 0.7265)
    return head.to(real)[..., None] * (2 * math.pi / 30) + column


def stride(act, head):
    """The way [...,2] an action asks for at the heading after it, in cells: x grows east, y south; walls unknown."""
    a = head.to(torch.get_default_dtype()) * (2 * math.pi / 30)
    ahead = torch.tensor([0, STEP, -STEP, 0, 0, STEP, STEP, 0, 0], device=act.device, dtype=a.dtype)[act]
    right = torch.tensor([0, 0, 0, 0, 0, 0, 0, -STEP, STEP], device=act.device, dtype=a.dtype)[act]
    return torch.stack((ahead * a.sin() + right * a.cos(), -ahead * a.cos() + right * a.sin()), -1)


def place_features(place, head, waves, columns=8):
    """Positions [...,2] in cells, headings [...], wavelengths in cells [n] -> [...,columns,8 n].

    Sines, then cosines, of four lengths: x, y, and for the column's ray its offset from the origin (rays along one
    line agree) and the camera's advance along it.
    """
    a = azimuths(head, columns)
    dx, dy = a.sin(), -a.cos()
    x, y = place[..., :1].expand_as(dx), place[..., 1:].expand_as(dx)
    u = torch.stack((x, y, x * dy - y * dx, x * dx + y * dy), -1)
    u = (u[..., None] * (2 * math.pi / waves)).flatten(-2)
    return torch.cat((u.sin(), u.cos()), -1)


class SelfAttn(nn.Module):
    """Projections of an attention, self or cross: q, k, v, o and the RMSNorm weights of q and k."""

    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q = nn.Parameter(torch.ones(d))
        self.norm_k = nn.Parameter(torch.ones(d))

    def heads(self, x):
        """[B,S,d] -> [B,heads,S,d/heads]"""
        return x.unflatten(-1, (self.h, -1)).transpose(1, 2)

    def qkv(self, x):
        q = self.heads(rms(self.q(x), self.norm_q))
        k = self.heads(rms(self.k(x), self.norm_k))
        return q, k, self.heads(self.v(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["d"]
        self.self_attn = SelfAttn(d, c["heads"])
        self.cross_attn = SelfAttn(d, c["heads"])
        self.norm3 = nn.LayerNorm(d, eps=1e-6)
        self.ffn1 = nn.Linear(d, c["ffn"])
        self.ffn2 = nn.Linear(c["ffn"], d)
        self.modulation = nn.Parameter(torch.zeros(6, d))
        with torch.no_grad():  # gates open, residual branches zero: the block starts as the identity
            self.modulation[2] = 1
            self.modulation[5] = 1
            for layer in (self.self_attn.o, self.cross_attn.o, self.ffn2):
                layer.weight.zero_()
                layer.bias.zero_()
        if "place_waves" in c:  # the same start for q and k: a mild bonus for the same place; time's dimensions are left alone
            n = 8 * len(c["place_waves"])
            start = torch.randn(c["heads"], d // c["heads"], n) * 0.35 / math.sqrt(n / 2)
            start[:, :c["rope_split"][0]] = 0
            self.place_q = nn.Parameter(start.view(d, n).clone())
            self.place_k = nn.Parameter(start.view(d, n).clone())

    def placed(self, q, k, pf):
        """Add the features pf [B,F,columns,n] of the frames' places to q and k [B,heads,tokens F,d/heads], before rotation."""
        if pf is None:
            return q, k
        many = q.shape[2] // (pf.shape[1] * pf.shape[2])  # rows of patches

        def rows(weight):
            y = F.linear(pf.to(q.dtype), weight.to(q.dtype)).repeat(1, 1, many, 1)
            return self.self_attn.heads(y.flatten(1, 2))
        return q + rows(self.place_q), k + rows(self.place_k)

    def cross(self, x, ctx, mask):
        c = self.cross_attn
        q = c.heads(rms(c.q(self.norm3(x)), c.norm_q))
        k = c.heads(rms(c.k(ctx), c.norm_k))
        v = c.heads(c.v(ctx))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return c.o(y.transpose(1, 2).flatten(2))

    def forward(self, x, e6, ctx, mask, cs, bm, pf=None):
        """Training pass over whole clips: x [B,S,d], e6 [B,F,6,d] (S = tokens F), cs the angles, bm the mask."""
        batch, tokens, d = x.shape
        frames = e6.shape[1]
        e = e6 + self.modulation.to(e6.dtype)

        def by_frame(y):
            return y.view(batch, frames, tokens // frames, d)

        def mod(i):
            return e[:, :, i, None]

        q, k, v = self.self_attn.qkv((by_frame(ln(x)) * (1 + mod(1)) + mod(0)).view(batch, tokens, d))
        q, k = self.placed(q, k, pf)
        q, k = rope(q, cs).to(v.dtype), rope(k, cs).to(v.dtype)
        if isinstance(bm, torch.Tensor):  # without flex_attention: a dense additive mask
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bm.to(q.dtype))
        else:
            y = flex_attention(q, k, v, block_mask=bm)
        y = self.self_attn.o(y.transpose(1, 2).flatten(2))
        x = x + (by_frame(y) * mod(2)).view(batch, tokens, d).to(x.dtype)
        x = x + self.cross(x, ctx, mask)
        y = self.ffn1((by_frame(ln(x)) * (1 + mod(4)) + mod(3)).view(batch, tokens, d))
        y = self.ffn2(F.gelu(y, approximate="tanh"))
        return x + (by_frame(y) * mod(5)).view(batch, tokens, d).to(x.dtype)


class TextLayer(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.attn = SelfAttn(d, h)
        self.n1 = nn.LayerNorm(d)
        self.n2 = nn.LayerNorm(d)
        self.f1 = nn.Linear(d, 4 * d)
        self.f2 = nn.Linear(4 * d, d)

    def forward(self, x, cs, mask):
        q, k, v = self.attn.qkv(self.n1(x))
        y = F.scaled_dot_product_attention(rope(q, cs), rope(k, cs), v, attn_mask=mask)
        x = x + self.attn.o(y.transpose(1, 2).flatten(2))
        return x + self.f2(F.gelu(self.f1(self.n2(x)), approximate="tanh"))


class TinyWorld(nn.Module):
    def __init__(self, c=CFG):
        super().__init__()
        self.c = c
        d, td = c["d"], c["text_d"]
        self.rows, self.columns = grid(c)
        self.tokens, self.values = self.rows * self.columns, c["patch"] ** 2 * 3
        self.patch = nn.Linear(self.values, d)
        self.pos = nn.Parameter(torch.randn(self.tokens, d) * 0.3)
        self.act_tok = nn.Parameter(torch.randn(c["n_act"], d) * 0.3)
        # Both heading tables start from 12 harmonics of the viewing azimuth of the patch column: [30,columns,24].
        azimuth = azimuths(torch.arange(30), self.columns)
        harmonics = torch.cat([f(azimuth[..., None] * k) for k in range(1, 13) for f in (torch.sin, torch.cos)], -1)
        self.ray_tok = nn.Parameter(harmonics @ torch.randn(24, d) * 0.12)
        self.act_e = nn.Parameter(torch.randn(c["n_act"], d) * 0.1)
        self.head_e = nn.Parameter(harmonics[:, self.columns // 2 - 1] @ torch.randn(24, d) * 0.03)
        if "place_waves" in c:
            self.place_in = nn.Parameter(torch.zeros(d, 8 * len(c["place_waves"])))
            self.register_buffer("waves", torch.tensor(c["place_waves"]), persistent=False)
        self.time1 = nn.Linear(c["freq_dim"], d)
        self.time2 = nn.Linear(d, d)
        self.time_proj = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.head_mod = nn.Parameter(torch.zeros(2, d))
        self.head = nn.Linear(d, self.values)
        self.text_emb = nn.Embedding(c["vocab"], td)
        self.text_pos = nn.Parameter(torch.randn(c["text_len"], td))
        self.text_seg = nn.Parameter(torch.randn(10, td))
        self.text_layers = nn.ModuleList(TextLayer(td, c["text_heads"]) for _ in range(c["text_layers"]))
        self.text_norm = nn.LayerNorm(td)
        self.text_proj = nn.Linear(td, d)
        with torch.no_grad():
            self.time_proj.weight.mul_(0.1)
            self.time_proj.bias.zero_()
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def text_input(self, tok):
        """Token ids [B,128] -> what enters the first text layer [B,128,text_d]."""
        # Every token of a clause carries the embedding of the clause's direction word (0: it has none).
        is_direction = (tok >= FIRST_DIRECTION) & (tok <= LAST_DIRECTION)
        clause = (tok == FULL_STOP).cumsum(1) - (tok == FULL_STOP).long()
        direction = torch.where(is_direction, tok - (FIRST_DIRECTION - 1), torch.zeros_like(tok))
        segment = torch.zeros_like(tok).scatter_reduce(1, clause, direction, "amax").gather(1, clause)
        return self.text_emb(tok) * 3 + self.text_pos + self.text_seg[segment]

    def text(self, tok):
        """Token ids [B,128] (0 pads) -> context [B,128,d] and additive mask [B,1,1,128]."""
        real = torch.bfloat16 if torch.is_autocast_enabled() else torch.get_default_dtype()
        mask = torch.zeros(tok.shape, dtype=real, device=tok.device).masked_fill(tok == 0, float("-inf"))[:, None, None]
        half = self.c["text_d"] // self.c["text_heads"] // 2
        freq = 1000.0 ** (-torch.arange(half, device=tok.device) / half)
        a = torch.arange(tok.shape[1], device=tok.device)[:, None] * freq
        cs = torch.stack((a.cos(), a.sin()), -1)
        x = self.text_input(tok)
        for layer in self.text_layers:
            x = layer(x, cs, mask.expand(-1, 1, tok.shape[1], -1))
        return self.text_proj(self.text_norm(x)), mask

    def features(self, place, head):
        """Features [B,F,columns,n] of positions [B,F,2] and headings [B,F]; None for a model that is not told its place."""
        return place_features(place, head, self.waves, self.columns) if "place_waves" in self.c else None

    def embed(self, x, t, act, head, pf=None):
        """x [B,F,tokens,192], t, act, head [B,F], pf as of features -> tokens [B,F,tokens,d], e [B,F,d], e6 [B,F,6,d]."""
        rays = self.ray_tok[head]
        if pf is not None:
            rays = rays + F.linear(pf, self.place_in)
        h = self.patch(x) + self.pos + self.act_tok[act][:, :, None] + rays.repeat(1, 1, self.rows, 1)
        n = self.c["freq_dim"] // 2
        freq = torch.exp(-math.log(10000.0) * torch.arange(n, device=t.device) / n)
        a = (t * 1000.0)[..., None] * freq
        e = self.time2(F.silu(self.time1(torch.cat((a.cos(), a.sin()), -1)))) + self.act_e[act] + self.head_e[head]
        return h, e, self.time_proj(F.silu(e)).unflatten(-1, (6, self.c["d"]))

    def out(self, h, e):
        """Tokens h [B,F,tokens,d], e [B,F,d] -> patches [B,F,tokens,192]."""
        m = self.head_mod + e[..., None, :]
        return self.head(ln(h) * (1 + m[..., 1, None, :]) + m[..., 0, None, :])

    def forward(self, xc, xn, tc, tn, act, head, tok, pos_t, bm, pf=None):
        """Teacher forcing: context copies xc at noise tc, noisy copies xn at noise tn; x0 of the noisy copies.

        pf [B,2F,columns,n] are the features of where the context frames were made and where the noisy ones should be.
        """
        frames = act.shape[1]
        ctx, mask = self.text(tok)
        h, e, e6 = self.embed(torch.cat((xc, xn), 1), torch.cat((tc, tn), 1), act.repeat(1, 2), head.repeat(1, 2), pf)
        cs = seq_angles(pos_t, self.c).repeat(2, 1, 1)
        h = h.flatten(1, 2)
        for block in self.blocks:
            h = block(h, e6, ctx, mask, cs, bm, pf)
        return self.out(h.unflatten(1, (2 * frames, self.tokens))[:, frames:], e[:, frames:])


def train_mask(frames, dev="cuda", tokens=64):
    """[clean | noisy] frames of that many tokens: clean frame i sees clean <= i; noisy frame i sees clean < i and itself."""
    n = frames * tokens

    def visible(b, h, q, k):
        q_noisy, k_noisy = q >= n, k >= n
        q_frame, k_frame = (q % n) // tokens, (k % n) // tokens
        of_noisy = torch.where(k_noisy, q_frame == k_frame, k_frame < q_frame)
        return torch.where(q_noisy, of_noisy, (~k_noisy) & (k_frame <= q_frame))
    if create_block_mask is None:
        i = torch.arange(2 * n, device=dev)
        return torch.where(visible(0, 0, i[:, None], i), 0.0, -1e9)[None, None]
    return create_block_mask(visible, None, None, 2 * n, 2 * n, device=dev, BLOCK_SIZE=128)


def schedule(n, shift=3.0):
    """Noise levels of n steps, n + 1 values from 1 to 0."""
    u = torch.linspace(1, 0, n + 1)
    return (shift * u / (1 + (shift - 1) * u)).tolist()


def write_safetensors(sd, path):
    """Write tensors of one of three types as safetensors."""
    kinds = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    header, blobs, at = {}, [], 0
    for name, v in sd.items():
        v = v.detach().contiguous().cpu()
        blob = (v.view(torch.int16) if v.element_size() == 2 else v).numpy().tobytes()
        header[name] = dict(dtype=kinds[v.dtype], shape=list(v.shape), data_offsets=[at, at + len(blob)])
        blobs.append(blob)
        at += len(blob)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as f:
        f.write(len(raw).to_bytes(8, "little") + raw + b"".join(blobs))


def widened(sd, c):
    """A state dict of older weights, made to fit configuration c: new actions start as copies of noop."""
    sd = dict(sd)
    for name in ("act_tok", "act_e"):
        more = c["n_act"] - sd[name].shape[0]
        if more:
            sd[name] = torch.cat((sd[name], sd[name][:1].expand(more, -1)))
    return sd


def load(path):
    """Read a plain safetensors file without the safetensors package; every tensor is widened to float32."""
    kinds = {"F32": (np.float32, torch.float32), "BF16": (np.int16, torch.bfloat16), "F16": (np.float16, torch.float16)}
    sd = {}
    with open(path, "rb") as f:
        raw = f.read()
    n = int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        a = torch.from_numpy(np.frombuffer(raw[8 + n + start:8 + n + end], kinds[entry["dtype"]][0]).copy())
        if entry["dtype"] == "BF16":
            a = (a.to(torch.int32) << 16).view(torch.float32)
        sd[name] = a.float().view(entry["shape"])
    return sd
