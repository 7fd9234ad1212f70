"""Pose-indexed memory: a rule in the sampler, same weights, no training.

The cache of every frame also holds its dead-reckoned pose: x and y in cells and heading in steps of 12 degrees, the
running sums of the actions (collisions ignored). A new frame reads the last `window` frames and the `top` older
frames nearest in pose, with w = exp(-|dxy|^2 / (2 sigma_xy^2) - dheading^2 / (2 sigma_heading^2)). A frame of
matching pose gets gamma * w on its logits and, if it matches well, is read as if it were `move` frames old.
"""
import torch

from infer import FAR, Roller
from tw import angles, rope, seq_angles

HEADINGS = 30


class PoseRoller(Roller):
    """All frames stay stored; few are read."""

    def __init__(self, *a, gamma=5.0, sigma_xy=0.15, sigma_heading=0.8, move=4, min_age=3, top=2, window=16,
                 w_move_min=0.3, log_w_min=-4.5, **k):
        super().__init__(*a, **k)
        self.pol = dict(kind="dense")
        self.gamma, self.sigma_xy, self.sigma_heading, self.move = gamma, sigma_xy, sigma_heading, move
        self.min_age, self.top, self.window = min_age, top, window
        self.w_move_min, self.log_w_min = w_move_min, log_w_min
        self.places, self.headings = [], []  # of the stored frames

    def aim(self, act, head):
        super().aim(act, head)
        self.heading = head

    def push(self, x, act, head, tc=0.0, built=False):
        super().push(x, act, head, tc, built)
        self.places.append(self.place)
        self.headings.append(self.heading)

    def match(self, n):
        """log w [B,n] of the stored frames, their ages [n] and which of them count as matching [B,n]."""
        places, headings = torch.stack(self.places, 1), torch.stack(self.headings, 1).float()
        turn = (headings - self.heading[:, None].float()).abs()
        turn = torch.minimum(turn, HEADINGS - turn)
        far = (places - self.target[:, None]).square().sum(-1)
        log_w = -far / (2 * self.sigma_xy ** 2) - turn ** 2 / (2 * self.sigma_heading ** 2)
        age = self.n - torch.arange(n, device=self.dev)
        return log_w, age, (age >= self.min_age)[None] & (log_w > self.log_w_min)

    def build(self):
        n = len(self.rec[0])
        self.own = seq_angles(torch.zeros(1, device=self.dev), self.m.c)
        self.cur = [None] * self.L
        if not n:
            return
        log_w, age, match = self.match(n)
        recent = min(self.window, n)
        index = torch.arange(n - recent, n, device=self.dev).expand(self.B, -1)
        valid = torch.ones(self.B, recent, dtype=torch.bool, device=self.dev)
        older = min(self.top, n - recent)
        if older:
            first = 1e-6 * torch.arange(n - recent, device=self.dev)  # of equals the older
            near = (log_w[:, :n - recent] - first).masked_fill(~match[:, :n - recent], FAR).topk(older, -1)
            index = torch.cat((near.indices, index), 1)
            valid = torch.cat((near.values > FAR / 10, valid), 1)
        hit = match.gather(1, index) & valid
        w = torch.where(hit, log_w.gather(1, index).exp(), torch.zeros(index.shape, device=self.dev))
        t = -age[index].clamp(max=self.clamp).float()
        t = torch.where(hit & (w > self.w_move_min), torch.full_like(t, -float(self.move)), t)
        self.read(index, t, torch.where(valid, self.gamma * w, torch.full_like(w, FAR)))

    def read(self, index, t, bias):
        """Set the keys, values and logit biases of the frames index [B,M], dated t [B,M]."""
        frames = index.shape[1]
        bias = bias.repeat_interleave(self.m.tokens, 1)[:, None].expand(-1, self.m.c["heads"], -1)
        rows, columns = self.ph.repeat(frames).expand(self.B, -1), self.pw.repeat(frames).expand(self.B, -1)
        cs = angles(t.repeat_interleave(self.m.tokens, 1), rows, columns, self.m.c)[:, None]
        batch = torch.arange(self.B, device=self.dev)[:, None]
        for layer in range(self.L):
            keys, values = (torch.stack([x[j] for x in self.rec[layer]], 1)[batch, index].transpose(1, 2).flatten(2, 3)
                            for j in (0, 1))
            self.cur[layer] = (rope(keys, cs), values, bias)
