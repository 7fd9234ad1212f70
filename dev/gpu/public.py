"""A chunk of Self-Forcing's network (Wan 1.3B, 480x832) in plain PyTorch with cuDNN's attention, as the public program runs it: bfloat16, one
operation after the other, the rotation in float64, keys rotated once and kept in place. Random weights; no text encoder, no VAE, no moving of
the cache. Prints ms for a chunk of five forwards by the latent frames that it sees, the chunk's three included:

    python3 dev/gpu/public.py 21 54 204

The numbers of dev/gpu/RESULTS.md, "Long rollouts", are its own beside those of `longtake bench rollout` in one run (dev/gpu/rollout.sh)."""

import sys
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DIM, HEADS, HEAD, FFN, LAYERS, TOKENS, CHUNK, PROMPT, FORWARDS = 1536, 12, 128, 8960, 30, 1560, 3, 512, 5
dev, half = "cuda", torch.bfloat16
torch.manual_seed(0)


def weight(*shape):
    return torch.randn(*shape, device=dev, dtype=half) * 0.02


def layer_norm(x, w=None, b=None):
    return F.layer_norm(x.float(), (DIM,), w, b, 1e-6).type_as(x)


def rms_norm(x, w):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x) * w


def rotate(x, angles):
    """x [tokens, heads, 128] by complex numbers [tokens, 1, 64], in float64."""
    y = torch.view_as_complex(x.to(torch.float64).reshape(x.shape[0], HEADS, HEAD // 2, 2))
    return torch.view_as_real(y * angles).flatten(2).type_as(x)


def attend(q, k, v):
    q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


class Block:
    def __init__(self, seen):
        lin = lambda i, o: (weight(o, i), weight(o))
        self.q, self.k, self.v, self.o = (lin(DIM, DIM) for _ in range(4))
        self.cq, self.co = lin(DIM, DIM), lin(DIM, DIM)
        self.f1, self.f2 = lin(DIM, FFN), lin(FFN, DIM)
        self.nq, self.nk, self.ncq = (weight(DIM) + 1 for _ in range(3))
        self.n3 = (torch.ones(DIM, device=dev), torch.zeros(DIM, device=dev))
        self.modulation = weight(1, 6, DIM)
        self.keys, self.values = (weight(seen * TOKENS, HEADS, HEAD) for _ in range(2))
        self.ck, self.cv = (weight(PROMPT, HEADS, HEAD) for _ in range(2))

    def forward(self, x, e, angles):
        n = CHUNK * TOKENS
        e = (self.modulation + e).chunk(6, dim=1)
        frames = lambda t: t.unflatten(0, (CHUNK, TOKENS))
        y = (frames(layer_norm(x)) * (1 + e[1]) + e[0]).flatten(0, 1)
        q, k = rms_norm(F.linear(y, *self.q), self.nq), rms_norm(F.linear(y, *self.k), self.nk)
        q, k, v = (t.view(n, HEADS, HEAD) for t in (q, k, F.linear(y, *self.v)))
        self.keys[-n:], self.values[-n:] = rotate(k, angles), v
        y = F.linear(attend(rotate(q, angles), self.keys, self.values), *self.o)
        x = x + (frames(y) * e[2]).flatten(0, 1)
        q = rms_norm(F.linear(layer_norm(x, *self.n3), *self.cq), self.ncq).view(n, HEADS, HEAD)
        x = x + F.linear(attend(q, self.ck, self.cv), *self.co)
        y = (frames(layer_norm(x)) * (1 + e[4]) + e[3]).flatten(0, 1)
        y = F.linear(F.gelu(F.linear(y, *self.f1), approximate="tanh"), *self.f2)
        return x + (frames(y) * e[5]).flatten(0, 1)


@torch.no_grad()
def chunk(seen):
    blocks = [Block(seen) for _ in range(LAYERS)]
    x, e = weight(CHUNK * TOKENS, DIM), weight(CHUNK, 6, DIM)
    angles = torch.polar(torch.ones(CHUNK * TOKENS, 1, HEAD // 2, dtype=torch.float64, device=dev), torch.randn(CHUNK * TOKENS, 1, HEAD // 2, dtype=torch.float64, device=dev))

    def forwards(n):
        for _ in range(n):
            y = x
            for b in blocks:
                y = b.forward(y, e, angles)
        return y

    forwards(2)
    times = []
    for _ in range(1 if seen > 100 else 5):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        y = forwards(FORWARDS)
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    assert torch.isfinite(y).all()
    return sorted(times)[len(times) // 2]


print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
for seen in [int(a) for a in sys.argv[1:]] or [21]:
    ms = chunk(seen)
    print(f"public: {seen} latent frames seen: {ms:.1f} ms a chunk, {4000 * CHUNK / ms:.1f} frames/s, {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB", flush=True)
    torch.cuda.empty_cache()
