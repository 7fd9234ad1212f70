"""Checkpoints between sittings: averaged weights as float32 cut to 24 bits, in two files below 16 MiB.

NAME-hi.bin holds the upper 16 bits of every value (a bf16 rounded towards zero), NAME-lo.bin the next 8; tensors follow each
other in the order of the model's parameters. Moments of the optimisers are not kept: they are warm again after some
fifty steps.
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


def load(params, stem):
    """Fill params; without the -lo file the values are those of the -hi file."""
    hi = np.fromfile(stem + "-hi.bin", np.uint16).astype(np.uint32) << 16
    if os.path.exists(stem + "-lo.bin"):
        hi |= np.fromfile(stem + "-lo.bin", np.uint8).astype(np.uint32) << 8
    want = sum(p.numel() for p in params)
    if len(hi) != want:
        raise ValueError(f"{stem}-hi.bin holds {len(hi)} values, the model has {want}: it belongs to another configuration")
    flat, at = torch.from_numpy(hi.view(np.float32)), 0
    with torch.no_grad():
        for p in params:
            p.copy_(flat[at:at + p.numel()].view(p.shape))
            at += p.numel()
