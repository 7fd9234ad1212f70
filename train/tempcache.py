"""TempCache: history tokens merged into their nearest representative, per layer and head.

A frame that leaves the recent frames is compared with every representative; a token that is close enough is
averaged in, else it becomes a representative of its own. Attention adds log(count) to the logits (infer.py).
"""
import torch
import torch.nn.functional as F

from tw import CFG, angles, hw_pos, rope


def gather_rows(z, index):
    """Rows of z [B,H,N,X] at index [B,H,M]."""
    return z.gather(2, index[..., None].expand(-1, -1, -1, z.shape[-1]))


class TempCache:
    """Representatives of one layer, padded to the longest head.

    K (before RoPE), V [B,heads,N,64]; P [B,heads,N,3] = (frame, row, column); C [B,heads,N] = tokens merged, 0 = free.
    policy: tau, match ("pre" keys as stored, "hw" after spatial RoPE, "post" after 3-D RoPE, "same" patch position
    only), pos ("new": position of the newest member, "old": of the first), scope ("head" or "layer" decisions).
    """

    def __init__(self, policy, dev, cfg=CFG):
        self.pol, self.dev, self.cfg = policy, dev, cfg
        self.K = self.V = self.P = self.C = None

    def empty(self):
        return self.K is None

    def used(self):
        """Which slots hold a representative [B,heads,N]."""
        return self.C > 0 if self.C is not None else torch.zeros(1, 1, 0, dtype=torch.bool, device=self.dev)

    def describe(self, keys, pos, t):
        """What is compared: unit vectors of the keys, rotated as the match mode says."""
        mode = self.pol.get("match", "pre")
        if mode == "hw":
            keys = rope(keys, angles(torch.zeros_like(pos[..., 0]), pos[..., 1], pos[..., 2], self.cfg))
        elif mode == "post":
            keys = rope(keys, angles(pos[..., 0] - t, pos[..., 1], pos[..., 2], self.cfg))
        return F.normalize(keys.float(), dim=-1)

    def match(self, k, pos, t):
        """Cosine similarity of the new tokens with every representative [B,heads,tokens,N]; free slots have -2."""
        sim = self.describe(k, pos, t) @ self.describe(self.K, self.P, t).transpose(-1, -2)
        sim = sim.masked_fill((self.C <= 0)[:, :, None], -2)
        if self.pol.get("match") == "same":
            moved = pos[..., 1:][:, :, :, None] != self.P[..., 1:][:, :, None]
            sim = sim.masked_fill(moved.any(-1), -2)
        if self.pol.get("scope") == "layer":
            sim = sim.mean(1, keepdim=True).expand(-1, k.shape[1], -1, -1)
        return sim

    def merge(self, k, v, t):
        """Take in the keys and values [B,heads,tokens,64] of frame t."""
        batch, heads, n, _ = k.shape
        ph, pw = hw_pos(self.dev, self.cfg)
        pos = torch.stack((torch.full((n,), t, device=self.dev), ph, pw), -1)
        pos = pos[None, None].expand(batch, heads, n, 3).contiguous()
        if self.K is None:
            self.K, self.V, self.P = k.clone(), v.clone(), pos
            self.C = torch.ones(batch, heads, n, device=self.dev)
            return
        best, index = self.match(k, pos, t).max(-1)
        hit = best >= self.pol["tau"]
        self.average(k, v, pos, hit, index)
        if not bool(hit.all()):
            self.append(k, v, pos, ~hit)

    def average(self, k, v, pos, hit, index):
        """Running mean of keys and values over the members; counts added; position of the newest member."""
        w = hit.float()
        count = self.C.scatter_add(2, index, w)
        rows = index[..., None].expand(-1, -1, -1, k.shape[-1])
        grown = (count > self.C)[..., None]

        def mean(old, new):
            total = (old.float() * self.C[..., None]).scatter_add(2, rows, new.float() * w[..., None])
            return torch.where(grown, total / count.clamp(min=1)[..., None], old.float()).to(new.dtype)

        self.K, self.V = mean(self.K, k), mean(self.V, v)
        if self.pol.get("pos", "new") == "new":
            member = torch.where(hit, torch.arange(hit.shape[2], device=self.dev).expand_as(hit), -1)
            last = torch.full_like(self.C, -1).long().scatter_reduce(2, index, member, "amax")
            self.P = torch.where((last >= 0)[..., None], gather_rows(pos, last.clamp(min=0)), self.P)
        self.C = count

    def append(self, k, v, pos, miss):
        """Give every missed token a slot of its own, in token order, compacted per (batch, head)."""
        most = int(miss.sum(-1).max())
        order = miss.float().sort(dim=-1, descending=True, stable=True).indices[..., :most]
        valid = miss.gather(2, order)
        used = (self.C > 0).sum(-1)
        slots, need = self.K.shape[2], int((used + miss.sum(-1)).max())
        if need > slots:
            more = max(need - slots, 256)
            self.K, self.V, self.P = (F.pad(z, (0, 0, 0, more)) for z in (self.K, self.V, self.P))
            self.C = F.pad(self.C, (0, more))
            slots += more
        dst = used[..., None] + torch.arange(most, device=self.dev)
        dst = torch.where(valid, dst, torch.full_like(dst, slots))  # the rest goes to a scratch slot

        def put(old, new):
            where = dst[..., None].expand(-1, -1, -1, new.shape[-1])
            return F.pad(old, (0, 0, 0, 1)).scatter(2, where, gather_rows(new, order))[:, :, :-1]

        self.K, self.V, self.P = put(self.K, k), put(self.V, v), put(self.P, pos)
        ones = torch.ones_like(dst, dtype=torch.float32)
        self.C = F.pad(self.C, (0, 1)).scatter(2, dst, ones)[:, :, :-1]
