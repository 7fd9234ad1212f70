"""A trained network's weights as the start of a larger one: wider, and on a finer grid of patches.

Width: every unit of the stream appears `times` times, and every head. What reads the stream shares its weight among the copies,
W / times each, and adds noise that cancels over them, so that the copies learn different things; the function stays the same,
norms included. Grid: the patches are as many pixels as before but lie `unit` as far apart (rope_unit), so that a larger frame
holds more of them: tables of patches and of columns are interpolated, everything else is shared. That keeps no function (a
patch is now a quarter of what it was) but what the layers know about places, time and the prompt.
"""
import torch
import torch.nn.functional as F

from tw import TinyWorld, grid

# Of the names of a state dict: what reads the stream, what writes to it, and what does both.
READ = ("head.weight",)
WRITE = ("patch.weight", "text_proj.weight", "time1.weight")
BOTH = ("time2.weight", "time_proj.weight", "self_attn.", "cross_attn.", "ffn1.weight", "ffn2.weight")
ROWS = ("place_q", "place_k", "place_in")  # [d, features]
SAME = ("text_emb", "text_pos", "text_seg", "text_layers", "text_norm", "head.bias")


def copies(x, times, groups=1):
    """x [groups * n, ...] -> [groups * times * n, ...]: each group's units, times over."""
    parts = x.unflatten(0, (groups, -1))
    return torch.cat([parts] * times, 1).flatten(0, 1)


def shared(w, times, noise, generator):
    """Columns of a matrix [out, in] that reads copies [out, times * in]: their sum is w."""
    n = torch.randn(w.shape[0], times, w.shape[1], generator=generator) * (noise * w.std() / times)
    n = n - n.mean(1, keepdim=True)
    return (w[:, None] / times + n).flatten(1)


def wider(name, w, times, noise, generator):
    """One tensor of a network that is `times` as wide."""
    if times == 1 or name.startswith(SAME):
        return w
    groups = 6 if name.startswith("time_proj") else 1
    if name in READ:
        return shared(w, times, noise, generator)
    if w.ndim == 2 and any(part in name for part in BOTH):
        return copies(shared(w, times, noise, generator), times, groups)
    if name in WRITE or name in ROWS or w.ndim == 1 or any(name.endswith(part) for part in ROWS):
        return copies(w, times, groups)
    return torch.cat([w] * times, -1)  # tables [..., d]


def finer(name, w, old, new):
    """One tensor on another grid (rows, columns): the table of patches [patches, d], that of rays [headings, columns, d]."""
    if old == new:
        return w
    if name == "pos":
        table = w.unflatten(0, old).permute(2, 0, 1)[None]
        return F.interpolate(table, size=new, mode="bicubic", align_corners=False)[0].permute(1, 2, 0).flatten(0, 1)
    if name == "ray_tok":
        return F.interpolate(w.transpose(1, 2), size=new[1], mode="linear", align_corners=False).transpose(1, 2)
    return w


def grown(sd, old, new, noise=1.0, seed=0):
    """The state dict of configuration old as one of configuration new."""
    times, generator = new["d"] // old["d"], torch.Generator().manual_seed(seed)
    same = ("layers", "patch", "text_d", "text_layers", "place_waves", "rope_split", "n_act", "freq_dim")
    if any(new.get(k) != old.get(k) for k in same) or any(new[k] != times * old[k] for k in ("d", "heads", "ffn")):
        raise ValueError("grown: width, heads and FFN grow by one factor, depth and everything else stay")
    out = {k: finer(k, wider(k, w, times, noise, generator), grid(old), grid(new)) for k, w in sd.items()}
    for name, p in TinyWorld(new).named_parameters():
        if out[name].shape != p.shape:
            raise ValueError(f"grown: {name} is {tuple(out[name].shape)}, wanted {tuple(p.shape)}")
    return out
