"""Batches of simulated clips with the places that the model is told."""
import torch

from simulator import LOOK, MIXED, RETURN, STROLL, UNDO
from tw import stride

# A stroll by a player who knows nothing of the walls, see blind(); one who pushes on at them, see press(); a turn on the spot
# whose contexts are all noise, so that only the prompt tells what is there.
BLIND, PRESS, TEXT = -1, -2, -3

# Of 16 clips: strolls, the older walk (with collisions), blind strolls, pressing into walls, turns from text alone, look-arounds,
# walks undone, walks with a turn and the way back.
MIX = ((STROLL, 2), (MIXED, 2), (BLIND, 1), (PRESS, 1), (TEXT, 4), (LOOK, 2), (UNDO, 2), (RETURN, 2))
KINDS = {BLIND: STROLL, PRESS: MIXED, TEXT: LOOK}
TURN_AWAY = 7  # turns of a blind player whom a wall has stopped


def spans(kind, frames, draw):
    """A length of the way there such that the way back fits into the clip, at least in part; draw is in [0, 1)."""
    low, high = {LOOK: (10, 40), TEXT: (30, 40), UNDO: (frames // 4, frames // 2), RETURN: (frames // 6, max(3, (frames - 31) // 2))}.get(kind, (0, 0))
    return low + int(draw * (high - low + 1))


def blind(sim, w, pose, act):
    """Poses [n,T,3] and actions [n,T] in worlds w, from the first of pose on, of players who follow the actions of another
    clip; whom a wall stops turns right for TURN_AWAY frames. What players of dreams do, whose walls no script knows."""
    act, at = act.roll(1, 0), pose[:, 0]
    turning, poses, acts = torch.zeros_like(act[:, 0]), [at], [act[:, 0]]
    for t in range(1, act.shape[1]):
        a = torch.where(turning > 0, torch.full_like(turning, 4), act[:, t])
        to = sim.step(w, at, a)
        moves = (a != 0) & (a != 3) & (a != 4)
        stopped = moves & ((to - at)[:, :2].abs().sum(-1) < 1e-4)
        turning = torch.where(stopped & (turning < 2), torch.full_like(turning, TURN_AWAY), (turning - 1).clamp(min=0))
        at = to
        poses.append(at)
        acts.append(a)
    return torch.stack(poses, 1), torch.stack(acts, 1)


def press(sim, w, pose, generator):
    """Poses [n,T,3] and actions [n,T] of players who walk on for 25 to 50 frames whatever is in the way, turn, and do it again;
    some walk backwards or slide along what stops them."""
    n, frames = pose.shape[:2]
    act, at = torch.zeros(n, frames, dtype=torch.long), pose[:, 0]
    for row in act:
        t = 1
        while t < frames:
            draw = torch.rand(5, generator=generator).tolist()
            walk, turn = 25 + int(draw[0] * 26), 3 + int(draw[1] * 18)
            row[t:t + walk] = 1
            if draw[2] < 0.3:  # the end of the way: back, aside, or with turns
                row[t + walk - 8:t + walk] = (2, 5, 6, 7, 8)[int(draw[3] * 5)]
            row[t + walk:t + walk + turn] = 3 if draw[4] < 0.5 else 4
            t += walk + turn
    act, poses = act.to(pose.device), [at]
    for t in range(1, frames):
        at = sim.step(w, at, act[:, t])
        poses.append(at)
    return torch.stack(poses, 1), act


def clips(sim, seed, n, frames, generator, size=(64, 64)):
    """n clips of the mix in random order, from seeds seed .. seed + n - 1: frames, tokens, actions, headings, poses, and [n] whether
    the contexts are to be hidden."""
    parts, at = [], 0
    for i, (kind, share) in enumerate(MIX):
        many = n - at if i == len(MIX) - 1 else n * share // 16
        if many:
            span = spans(kind, frames, torch.rand(1, generator=generator).item())
            w, tok, pose, act = sim.gen(seed + at, many, frames, kind=KINDS.get(kind, kind), span=span)
            if kind == BLIND:
                pose, act = blind(sim, w, pose, act)
            if kind == PRESS:
                pose, act = press(sim, w, pose, generator)
            hide = torch.full((many,), kind == TEXT, device=act.device)
            parts.append((sim.render(w, pose, size[1], size[0]), tok, act, pose[..., 2].round().long(), pose[..., :2], hide))
            at += many
    order = torch.randperm(n, generator=generator).to(parts[0][0].device)
    return [torch.cat(x)[order] for x in zip(*parts)]


def places(xy, act, head):
    """Where context frames were made [B,T,2] and where the noisy ones should be [B,T,2], in cells from a random origin.

    A noisy frame is told the place that its action asks for, from the place of the frame before: whether a wall is in
    the way is the model's to know. Context frames are told the truth, or, in three clips of ten, what a player can
    know: that a step counts unless nothing moved (slides along a wall then count as whole steps).
    """
    batch = act.shape[0]
    step = stride(act, head)
    step[:, 0] = 0
    moved = (xy - torch.cat((xy[:, :1], xy[:, :-1]), 1)).norm(dim=-1, keepdim=True) > 0.02
    known = (step * moved).cumsum(1)
    truth = xy - xy[:, :1]
    clean = torch.where(torch.rand(batch, 1, 1, device=xy.device) < 0.3, known, truth)
    clean = clean + (torch.rand(batch, 1, 2, device=xy.device) * 12 - 6)
    return clean, torch.cat((clean[:, :1], clean[:, :-1]), 1) + step
