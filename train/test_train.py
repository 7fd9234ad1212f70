"""Laws of this folder on the CPU, in two minutes: python3 train/test_train.py"""
import os
import tempfile
import warnings

import torch

import batch
import checkpoint
import data
import dreams
import infer
import posecache
import train
from simulator import LOOK, MIXED, RETURN, STROLL, UNDO, Sim
from grow import grown
from tw import CFG, HD, PLACED, TinyWorld, image, load, patchify, stride, train_mask

warnings.filterwarnings("ignore")
WIDE = dict(HD, size=[16, 24])  # 2 x 3 patches, half as far apart
SMALL = dict(d=64, layers=2, heads=1, ffn=96, text_d=16, text_layers=1, text_heads=1, freq_dim=32)


def small(c):
    """A network with random numbers everywhere."""
    torch.manual_seed(1)
    m = TinyWorld(dict(c, **SMALL))
    with torch.no_grad():
        for p in m.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return m.eval()


def clip(kind, frames, n=2, c=CFG, **k):
    vid, tok, act, head, _, pose = Sim("cpu").clips(3000, n, frames, kind=kind, size=image(c), **k)
    return patchify(vid), tok, act, head, pose[..., :2]


def a_training_pass_is_the_samplers():
    """The prediction for a noisy frame is the one that the sampler makes after the clean frames before it."""
    for c in (CFG, PLACED, WIDE):
        m = small(c)
        x, tok, act, head, xy = clip(UNDO, 8, span=4, c=c)
        z, t = torch.randn_like(x), torch.rand(2, 8)
        step = stride(act, head)
        step[:, 0] = 0
        place = step.cumsum(1)
        pf = m.features(torch.cat((place, place), 1), head.repeat(1, 2))
        with torch.no_grad():
            p = m(x, z, torch.zeros(2, 8), t, act, head, tok, torch.arange(8), train_mask(8, "cpu", m.tokens), pf)
        r = infer.Roller(m, tok)
        for i in range(8):
            r.aim(act[:, i], head[:, i])
            r.build()
            for b in range(2):  # levels differ by clip
                got = r.run(z[:, i], t[b, i], act[:, i], head[:, i])[b]
                assert (got - p[b, i]).abs().max() < 1e-4, (i, (got - p[b, i]).abs().max())
            r.push(x[:, i], act[:, i], head[:, i])


def many_timelines_equal_one_sampler():
    for c in (CFG, PLACED, WIDE):
        m = small(c)
        x, tok, act, head, _ = clip(UNDO, 20, span=9, c=c)
        batch.POSE["window"] = 6
        for policy, other in (("full", lambda: infer.Roller(m, tok)), ("window:5", lambda: infer.Roller(m, tok, dict(kind="window", n=5))),
                              ("pose", lambda: posecache.PoseRoller(m, tok, window=6))):
            r, b, g = other(), batch.Batch(m, tok, 20, policy), torch.Generator().manual_seed(0)
            for i in range(20):
                b.look(act[:, i], head[:, i])
                if i < 10:
                    b.keep(x[:, i], head[:, i], act[:, i])
                    r.push(x[:, i], act[:, i], head[:, i])
                    continue
                eps = torch.randn(*x[:, 0].shape, generator=g)
                made, want = b.sample(eps, 2, 1.0), r.sample(act[:, i], head[:, i], 2, eps=eps, shift=1.0)
                assert (made - want).abs().max() < 2e-3, (policy, i, (made - want).abs().max())
                b.keep(want, head[:, i], act[:, i])


def a_checkpoint_keeps_sixteen_bits_of_mantissa():
    with tempfile.TemporaryDirectory() as d:
        p = [torch.randn(5, 7), torch.randn(3) * 1e-3]
        checkpoint.save(p, os.path.join(d, "a"))
        q = [torch.zeros(5, 7), torch.zeros(3)]
        checkpoint.load(q, os.path.join(d, "a"))
        assert all(((a - b).abs() <= b.abs() * 2 ** -15).all() for a, b in zip(q, p))
        checkpoint.save_short(p, os.path.join(d, "b"))
        checkpoint.load(q, os.path.join(d, "b"))
        assert all(((a - b).abs() <= torch.cat([x.flatten() for x in p]).abs().max() / 250).all() for a, b in zip(q, p))
        for stem in "ab":
            try:
                checkpoint.load([torch.zeros(70)], os.path.join(d, stem))
                assert False, "weights of another model were taken"
            except ValueError:
                pass


def a_wider_network_is_the_same_function():
    old = dict(PLACED, **SMALL)
    new = dict(old, d=128, heads=2, ffn=192)
    m, wide = small(PLACED), TinyWorld(new).eval()
    wide.load_state_dict(grown(m.state_dict(), old, new))
    x, tok, act, head, xy = clip(STROLL, 4)
    t = torch.rand(2, 4)
    pf = m.features(torch.cat((xy, xy), 1), head.repeat(1, 2))
    with torch.no_grad():
        a, b = (n(x, x.flip(1), t, t, act, head, tok, torch.arange(4), train_mask(4, "cpu"), pf) for n in (m, wide))
    assert (a - b).abs().max() < 1e-4 * a.abs().max(), (a - b).abs().max()


def a_grown_network_predicts_larger_frames():
    """The weights of the smaller one, on a finer grid and untrained, take away most of the noise."""
    sd = load(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "model", "tinyworld", "tinyworld.safetensors"))
    m = TinyWorld(HD).eval()
    m.load_state_dict(grown(sd, PLACED, HD))
    x, tok, act, head, xy = clip(STROLL, 4, n=1, c=HD)
    t = torch.full((1, 4), 0.5)
    z = 0.5 * x + 0.5 * torch.randn_like(x)
    with torch.no_grad():
        p = m(x, z, t * 0, t, act, head, tok, torch.arange(4), train_mask(4, "cpu", m.tokens), m.features(torch.cat((xy, xy), 1), head.repeat(1, 2)))
    assert (p - x)[:, 1:].square().mean() < 0.1 * (z - x)[:, 1:].square().mean()


def places_are_true_or_reckoned():
    _, _, act, head, xy = clip(STROLL, 64, n=16)
    torch.manual_seed(0)
    clean, noisy = data.places(xy, act, head)
    assert (noisy[:, 1:] - clean[:, :-1] - stride(act, head)[:, 1:]).abs().max() < 1e-5
    moved = (clean - clean[:, :1] - (xy - xy[:, :1])).abs().amax((1, 2))
    assert (moved < 1e-5).float().mean() > 0.5  # most clips are told the truth, or touch nothing


def a_walk_that_returns_returns():
    _, _, act, head, xy = clip(RETURN, 61, n=16, span=15)
    assert ((xy[:, 0] - xy[:, 60]).norm(dim=-1) < 0.05).float().mean() > 0.8
    assert (head[:, 0] == head[:, 60]).all()


def steps_of_the_simulator_lead_where_its_walks_do():
    sim = Sim("cpu")
    w, _, pose, act = sim.gen(3000, 16, 64, kind=MIXED)
    for t in range(1, 64):
        assert torch.equal(sim.step(w, pose[:, t - 1], act[:, t]), pose[:, t])
    blind, acts = data.blind(sim, w, pose, act)
    assert torch.equal(blind[:, 0], pose[:, 0]) and not torch.equal(blind, pose)
    assert ((acts == 4).float().mean() > 0.05) and (blind[:, 1:] - blind[:, :-1]).norm(dim=-1).max() < 31


def who_presses_is_stopped_and_turns():
    sim = Sim("cpu")
    w, _, pose, _ = sim.gen(3000, 4, 112, kind=MIXED)
    pose, act = data.press(sim, w, pose, torch.Generator().manual_seed(3))
    still = ((pose[:, 1:] - pose[:, :-1]).norm(dim=-1) < 1e-4) & (act[:, 1:] == 1)
    assert still.float().mean() > 0.03 and ((act == 3) | (act == 4)).float().mean() > 0.1
    for t in range(1, 112):
        assert torch.equal(sim.step(w, pose[:, t - 1], act[:, t]), pose[:, t])


def what_was_seen_is_known():
    """Turned right round, everything has been seen; a walk undone shows nothing new; the first frame is new."""
    sim = Sim("cpu")
    w, _, pose, _ = sim.gen(3000, 4, 61, kind=LOOK, span=30)
    seen, what = sim.seen(w, pose, 31)
    assert (seen[:, 0] == 0).all() and (seen[:, 31:] == 2).float().mean() > 0.999 and 0.02 < (seen[:, 1:31] == 0).float().mean() < 0.5
    assert (what == 0).any() and (what <= 19).all()
    w, _, pose, _ = sim.gen(3000, 4, 41, kind=UNDO, span=20)
    assert (sim.seen(w, pose, 21)[0][:, 21:] == 2).float().mean() > 0.999
    assert (sim.seen(w, pose)[0][:, 1:21] == 0).float().mean() > 0.005


def hidden_contexts_are_noise():
    x = torch.ones(4, 8, 2, 3)
    noisy, t = train.noisy_context(x, torch.tensor([True, False, False, True]))
    assert (t[0] == 1).all() and (t[3] == 1).all() and (t[1:3] < 1).any() and noisy[0].mean().abs() < 0.5


def own_estimates_of_who_knows_are_noised_truth():
    """A model that knows the truth comes, by the sampler's step, to the truth noised to the sampler's next level."""
    x, z = torch.randn(4, 32, 2, 3).clamp(-1, 1), torch.full((4, 32, 2, 3), 7.0)
    tc = torch.zeros(4, 32)
    tc[0], tc[1, :10] = 1, 1
    made, t = train.own_estimates(lambda *_: x, x, z, torch.full((4, 32), 0.9), x, tc, torch.zeros(4, 32), None, None, None, None, None)
    own = (t != 0.9)
    assert 0.3 < own[2:].float().mean() < 0.7 and (made[~own] == 7).all() and set(t[own].unique().tolist()) == {0.5, 0.75}
    assert not own[0].any() and not own[1, :11].any() and own[1, 11:].any() and not own[:, 0].any()
    tt = t[..., None, None]
    assert abs((((made - (1 - tt) * x) / tt)[own]).std() - 1) < 0.1


def easy_frames_weigh_more():
    se, text = torch.rand(4, 8) * 0.02, torch.tensor([True, False, False, False])[:, None].expand(4, 8)
    w = train.by_error(se, text)
    assert (w[0] == 1).all() and abs(w[1:].mean() - 1) < 1e-5 and w[1:].min() >= 0.5
    assert torch.equal(w[1:].flatten().argsort(), (-se[1:]).flatten().argsort())


def equal_pictures_in_another_order_have_no_distance():
    true = dreams.pictures(clip(MIXED, 16)[0].flatten(0, 1))
    soft = torch.nn.functional.avg_pool2d(true, 3, 1, 1, count_include_pad=False).requires_grad_()
    assert dreams.distance(true.flip(0), true) < 1e-9
    assert dreams.distance(soft, true) > 0.01
    start, steps = soft.detach().clone(), torch.optim.Adam([soft], lr=0.01)
    for _ in range(30):
        steps.zero_grad()
        dreams.distance(soft, true).backward()
        steps.step()
    with torch.no_grad():
        assert dreams.distance(soft, true) < 0.7 * dreams.distance(start, true)


def dreams_can_be_learnt_from():
    m, sim = small(PLACED), Sim("cpu")
    d = dreams.Dreams(m, sim, 5, n=4, long=12)
    for bank, steps in enumerate((4, 4, 2, 2)):
        last = d.made if bank % 2 else None
        d.refresh(list(m.parameters()))
        assert d.steps == steps
        if bank % 2:  # the dream goes on: from the frames that there were
            assert torch.equal(d.made[:, :6], last[:, -6:]) and not torch.equal(d.made[:, 6], last[:, 0])
        for of_truth in (False, True):
            m.zero_grad()
            loss = d.loss(m, 2, 8, train_mask(8, "cpu"), of_truth)
            loss.backward()
            assert torch.isfinite(loss) and sum(p.grad is not None and p.grad.abs().max() > 0 for p in m.parameters()) > 50


def a_bank_of_dreams_is_read_as_written():
    m, sim = small(PLACED), Sim("cpu")
    with tempfile.TemporaryDirectory() as folder:
        d, e = dreams.Dreams(m, sim, 5, n=2, long=14), dreams.Dreams(m, sim, 6)
        d.write(f"{folder}/bank", m.state_dict())
        e.read(f"{folder}/bank")
    assert (e.n, e.long) == (2, 14) and torch.equal(e.made, d.made) and torch.equal(e.true_xy, d.true_xy)
    assert torch.isfinite(e.loss(m, 2, 8, train_mask(8, "cpu")))


def losses_reach_every_parameter():
    m = small(PLACED)
    vid, tok, act, head, _, pose = Sim("cpu").clips(5, 2, 8, kind=STROLL)
    hide = torch.zeros(2, dtype=torch.bool)
    for step in (2, 3):  # contexts, or noisy copies, that the model made
        m.zero_grad()
        loss, _, _ = train.clip_loss(m, (vid, tok, act, head, pose[..., :2], hide), step, train_mask(8, "cpu"))
        loss.backward()
        missing = [n for n, p in m.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
        assert not missing, (step, missing)


if __name__ == "__main__":
    torch.set_num_threads(2)
    for law in (a_training_pass_is_the_samplers, many_timelines_equal_one_sampler, a_checkpoint_keeps_sixteen_bits_of_mantissa,
                a_wider_network_is_the_same_function, a_grown_network_predicts_larger_frames, places_are_true_or_reckoned,
                a_walk_that_returns_returns, steps_of_the_simulator_lead_where_its_walks_do, who_presses_is_stopped_and_turns,
                what_was_seen_is_known, hidden_contexts_are_noise, own_estimates_of_who_knows_are_noised_truth,
                easy_frames_weigh_more, equal_pictures_in_another_order_have_no_distance, dreams_can_be_learnt_from, a_bank_of_dreams_is_read_as_written,
                losses_reach_every_parameter):
        law()
        print("ok", law.__name__)
