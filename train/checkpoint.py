"""Checkpoints between sittings: averaged weights as float32 cut to 24 bits, in two files below 16 MiB.

NAME-hi.bin holds the upper 16 bits of every value (a bf16 rounded towards zero), NAME-lo.bin the next 8; tensors follow each
other in the order of the model's parameters. Moments of the optimisers are not kept: they are warm again after some
fifty steps.

NAME-q8.bin is half as long as bf16, for models that are too large to be carried about otherwise: for every 64 values a float16, the
largest magnitude / levels, and 64 bytes that it multiplies (127 levels: an error of .5 % of the values' own spread; fewer pack better).
"""
import os

import numpy as np
import torch


def write(path, data):
    """Write bytes under their name only when they are whole."""
    with open(path + ".part", "wb") as f:
        f.write(data)
    os.replace(path + ".part", path)


def save(params, stem):
    """params: tensors in the order of the model's parameters."""
    flat = torch.cat([p.detach().float().flatten().cpu() for p in params]).numpy().view(np.uint32)
    write(stem + "-hi.bin", (flat >> 16).astype(np.uint16).tobytes())
    write(stem + "-lo.bin", (flat >> 8).astype(np.uint8).tobytes())


RUN = 64


def save_short(params, stem, levels=127):
    """params as NAME-q8.bin: all scales, then all bytes."""
    flat = torch.cat([p.detach().float().flatten().cpu() for p in params])
    runs = torch.cat((flat, flat.new_zeros(-len(flat) % RUN))).view(-1, RUN)
    scale = (runs.abs().amax(1) / levels).half().float().clamp(min=2.0 ** -24)
    whole = (runs / scale[:, None]).round().clamp(-levels, levels).to(torch.int8)
    write(stem + "-q8.bin", scale.half().numpy().tobytes() + whole.numpy().tobytes())


def load_short(stem):
    """All values of NAME-q8.bin, the last run's padding too."""
    raw = np.fromfile(stem + "-q8.bin", np.uint8)
    n = len(raw) // (RUN + 2)
    if n * (RUN + 2) != len(raw):
        raise ValueError(f"{stem}-q8.bin is {len(raw)} bytes long, not a number of runs of {RUN + 2}")
    scale = torch.from_numpy(raw[:2 * n].view(np.float16).astype(np.float32))
    return (torch.from_numpy(raw[2 * n:].view(np.int8).astype(np.float32)).view(n, RUN) * scale[:, None]).flatten()


def load(params, stem):
    """Fill params; without the -lo file the values are those of the -hi file, without that those of the -q8 file."""
    want = sum(p.numel() for p in params)
    if not os.path.exists(stem + "-hi.bin"):
        flat = load_short(stem)
        if not want <= len(flat) < want + RUN:
            raise ValueError(f"{stem}-q8.bin holds {len(flat)} values, the model has {want}: it belongs to another configuration")
        fill(params, flat)
        return
    hi = np.fromfile(stem + "-hi.bin", np.uint16).astype(np.uint32) << 16
    if os.path.exists(stem + "-lo.bin"):
        hi |= np.fromfile(stem + "-lo.bin", np.uint8).astype(np.uint32) << 8
    if len(hi) != want:
        raise ValueError(f"{stem}-hi.bin holds {len(hi)} values, the model has {want}: it belongs to another configuration")
    fill(params, torch.from_numpy(hi.view(np.float32)))


def fill(params, flat):
    at = 0
    with torch.no_grad():
        for p in params:
            p.copy_(flat[at:at + p.numel()].view(p.shape))
            at += p.numel()
