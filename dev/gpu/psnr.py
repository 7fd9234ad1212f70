"""PSNR of two y4m videos of one size, frame by frame: python3 dev/gpu/psnr.py A.y4m B.y4m. Values of all planes count alike."""

import sys
import numpy as np


def frames(path):
    data = open(path, "rb").read()
    end = data.index(b"\n")
    words = data[:end].split()
    w, h = (next(int(x[1:]) for x in words if x[:1] == c) for c in (b"W", b"H"))
    kind = next((x for x in words if x[:1] == b"C"), b"C420")
    n = w * h * 3 if kind.startswith(b"C444") else w * h + 2 * ((w + 1) // 2) * ((h + 1) // 2)
    at = end + 1
    while at < len(data):
        at = data.index(b"\n", at) + 1
        yield np.frombuffer(data, np.uint8, n, at).astype(np.float64)
        at += n


dB = []
for a, b in zip(frames(sys.argv[1]), frames(sys.argv[2])):
    mse = ((a - b) ** 2).mean()
    dB.append(100.0 if mse == 0 else 10 * np.log10(255**2 / mse))
marks = sorted({0, 8, 20, 56, 116, len(dB) - 1} & set(range(len(dB))))
print(f"{len(dB)} frames, mean {np.mean(dB):.2f} dB; " + ", ".join(f"frame {i}: {dB[i]:.2f}" for i in marks))
