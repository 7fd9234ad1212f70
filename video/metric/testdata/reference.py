#!/usr/bin/env python3
"""Independent reference for PSNR, SSIM and MS-SSIM: standard library only, written from the papers.

Direct two-dimensional windows (no separable filter), math.fsum throughout. Reads and writes binary
PPM. Usage: reference.py make    writes the *.ppm pictures (seeded, no inputs)
            reference.py golden  prints golden.json
"""
import json, math, os, random, sys

HERE = os.path.dirname(os.path.abspath(__file__))
PAIRS = [("scene", "scene-noise"), ("scene", "scene-shift"), ("scene", "scene-blur"), ("wide", "wide-noise")]


def path(name):
    return os.path.join(HERE, name + ".ppm")


def save(name, w, h, pix):
    with open(path(name), "wb") as f:
        f.write(b"P6\n%d %d\n255\n" % (w, h) + bytes(pix))


def load(name):
    data = open(path(name), "rb").read()
    magic, size, depth, pix = data.split(b"\n", 3)
    w, h = map(int, size.split())
    assert magic == b"P6" and depth == b"255" and len(pix) == 3 * w * h
    return w, h, pix


def scene(w, h, dx=0):
    out = []
    for y in range(h):
        for x in range(w):
            u = x + dx
            wall = 60 if (u // 9 + y // 7) % 2 else 0
            out += [(u * 5 + wall) % 256, int(127 + 90 * math.sin(y / 5.0) + wall / 2) % 256,
                    int(120 + 80 * math.cos((u + y) / 8.0))]
    return out


def clip(v):
    return max(0, min(255, int(round(v))))


def make():
    rnd = random.Random(7)
    w, h = 64, 48
    a = scene(w, h)
    save("scene", w, h, a)
    save("scene-noise", w, h, [clip(v + rnd.gauss(0, 12)) for v in a])
    save("scene-shift", w, h, scene(w, h, dx=1))
    at = lambda x, y, c: a[3 * (max(0, min(h - 1, y)) * w + max(0, min(w - 1, x))) + c]
    save("scene-blur", w, h, [clip(sum(at(x + i, y + j, c) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9)
                              for y in range(h) for x in range(w) for c in range(3)])
    w, h = 173, 163  # odd sides: exercises the padding of every halving
    a = scene(w, h)
    save("wide", w, h, a)
    save("wide-noise", w, h, [clip(v * 0.9 + 8 + rnd.gauss(0, 8)) for v in a])


def window():
    g = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5 ** 2)) for i in range(11)] for j in range(11)]
    total = math.fsum(map(math.fsum, g))
    return [(i, j, g[j][i] / total) for j in range(11) for i in range(11)]


WINDOW = window()


def ssim_terms(p, q):
    """p, q: lists of rows. Returns mean SSIM and mean contrast-structure."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    full, cs = [], []
    for y in range(len(p) - 10):
        for x in range(len(p[0]) - 10):
            t = [(g, p[y + j][x + i], q[y + j][x + i]) for i, j, g in WINDOW]
            mp = math.fsum(g * a for g, a, b in t)
            mq = math.fsum(g * b for g, a, b in t)
            # Centred moments, unlike the E[x^2] - mean^2 of the implementation under test.
            vp = math.fsum(g * (a - mp) ** 2 for g, a, b in t)
            vq = math.fsum(g * (b - mq) ** 2 for g, a, b in t)
            cov = math.fsum(g * (a - mp) * (b - mq) for g, a, b in t)
            s = (2 * cov + c2) / (vp + vq + c2)
            cs.append(s)
            full.append(s * (2 * mp * mq + c1) / (mp * mp + mq * mq + c1))
    return math.fsum(full) / len(full), math.fsum(cs) / len(cs)


def halve(p):
    pad = [row + [row[-1]] if len(row) % 2 else row for row in p]
    if len(pad) % 2:
        pad = pad + [pad[-1]]
    return [[(pad[y][x] + pad[y][x + 1] + pad[y + 1][x] + pad[y + 1][x + 1]) / 4
             for x in range(0, len(pad[0]), 2)] for y in range(0, len(pad), 2)]


def golden(a, b):
    w, h, pa = load(a)
    _, _, pb = load(b)
    mse = math.fsum((x - y) ** 2 for x, y in zip(pa, pb)) / len(pa)
    unit = lambda v: v / 127.5 - 1
    mse_unit = math.fsum((unit(x) - unit(y)) ** 2 for x, y in zip(pa, pb)) / len(pa)
    chans = [([[float(pa[3 * (y * w + x) + c]) for x in range(w)] for y in range(h)],
              [[float(pb[3 * (y * w + x) + c]) for x in range(w)] for y in range(h)]) for c in range(3)]
    scales = 5 if min(w, h) >= 161 else 3
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales]
    ssim, ms = [], []
    for p, q in chans:
        product = 1.0
        for k, wt in enumerate(weights):
            full, cs = ssim_terms(p, q)
            if k == 0:
                ssim.append(full)
            product *= max(full if k == scales - 1 else cs, 0) ** (wt / sum(weights))
            p, q = halve(p), halve(q)
        ms.append(product)
    return {"a": a, "b": b, "psnr": 10 * math.log10(255 ** 2 / mse), "psnr_float": 10 * math.log10(4 / mse_unit),
            "ssim": math.fsum(ssim) / 3, "scales": scales, "ms_ssim": math.fsum(ms) / 3}


if sys.argv[1:] == ["make"]:
    make()
elif sys.argv[1:] == ["golden"]:
    print(json.dumps([golden(a, b) for a, b in PAIRS], indent=1))
else:
    sys.exit(__doc__)
