"""Checks the attention kernels against float64 and times them beside PyTorch. See run.sh."""
import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time

import attend

OUT = os.environ.get("OUT", ".")


def variant(name, **defines):
    return (name, tuple(sorted(defines.items())), "sm_90a" if name == "attend_sm90" else "sm_90")


def wanted(mode):
    """Variants to build. Checks want all, timing and the sanitizer fewer."""
    jobs = []
    for name in ("attend_sm90", "attend_mma"):
        for dim in (128, 64):
            blocks = (160, 128) if name == "attend_sm90" else (128,)
            for block in blocks:
                extra = {"BLOCK_N": block} if name == "attend_sm90" else {}
                jobs.append(variant(name, HEAD_DIM=dim, **extra))
                jobs.append(variant(name, HEAD_DIM=dim, BIAS=1, **extra))
                jobs.append(variant(name, HEAD_DIM=dim, BIAS=1, RAGGED=1, OUT_F32=1, **extra))
                jobs.append(variant(name, HEAD_DIM=dim, RAGGED=1, **extra))
            for tile in (64, 128):
                jobs.append(variant(name, HEAD_DIM=dim, LIST_TILE=tile))
                jobs.append(variant(name, HEAD_DIM=dim, LIST_TILE=tile, BIAS=1, RAGGED=1))
    if mode == "small":
        keep = [dict(HEAD_DIM=128, BLOCK_N=160), dict(HEAD_DIM=128), dict(HEAD_DIM=128, LIST_TILE=64, BIAS=1, RAGGED=1)]
        jobs = [j for j in jobs if dict(j[1]) in keep]
    return jobs


def build(jobs, report):
    jobs = list(dict.fromkeys(jobs))
    start = time.time()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 2), mp_context=context) as pool:
        results = list(pool.map(attend.compile_cubin, jobs))
    kernels = {}
    with open(f"{OUT}/build.log", "w") as log:
        for job, (cubin, text) in zip(jobs, results):
            log.write(f"== {job}\n{text}\n")
            if cubin is None:
                print("BUILD FAILED", job, text[:1500], flush=True)
                continue
            kernels[job] = attend.Kernel(job[0], job[1], cubin)
            kernels[job].cubin = cubin
            r, local = kernels[job].registers()
            notes = [l for l in text.splitlines() if "warn" in l.lower() or "serializ" in l.lower() or "C75" in l]
            log.write(f"registers {r}, local bytes {local}, notes {len(notes)}\n")
            if local > 64 or any("C7519" not in n for n in notes):
                print("build", job, "registers", r, "local", local, notes[:2], flush=True)
    print(f"built {len(kernels)} of {len(jobs)} in {time.time() - start:.1f} s", flush=True)
    report["built"] = len(kernels)
    return kernels


def finish(torch, kernel, what, limit=10.0):
    """Waits for the device; a kernel that never ends would otherwise hold the machine until the time limit."""
    event = torch.cuda.Event()
    event.record()
    start = time.time()
    while not event.query():
        if time.time() - start > limit:
            print("HANG", kernel.name, kernel.defines, what, flush=True)
            os._exit(3)
        time.sleep(0.0005)


# ---- reference ----

def reference(torch, q, k, v, scale, log_count=None, mask=None):
    """float64 softmax attention, [heads, nq, dim]; mask is true where a key counts. Returns out, log-sum."""
    out, sums = [], []
    for h in range(q.shape[0]):
        s = q[h].double() @ k[h].double().T * scale
        if log_count is not None:
            s = s + log_count[h].double()
        if mask is not None:
            s = s.masked_fill(~mask[h], -math.inf)
        lse = torch.logsumexp(s, -1)
        p = torch.exp(s - torch.where(torch.isinf(lse), torch.zeros_like(lse), lse)[:, None])
        out.append(p @ v[h].double())
        sums.append(lse)
    return torch.stack(out), torch.stack(sums)


def case(torch, kernel, heads, nq, nk, amplitude=1.0, pieces=None, whole=None, dynamic=False, strided=False, seed=0,
         density=0.4):
    """One comparison on fresh inputs; returns (relative error, worst log-sum error)."""
    g = torch.Generator(device="cuda").manual_seed(seed * 7919 + nq * 31 + nk)
    dim, dev, bf = kernel.dim, "cuda", torch.bfloat16
    cap = nk + (53 if nk % 2 else 200)

    def rand(n):
        if strided:
            return torch.randn(n, heads, dim, device=dev, generator=g).to(bf).transpose(0, 1)
        return torch.randn(heads, n, dim, device=dev, generator=g).to(bf)

    q, k, v = (rand(nq) * amplitude).to(bf), rand(cap), rand(cap)
    lengths = None
    count = torch.full((heads,), nk, device=dev)
    if kernel.ragged:
        lengths = torch.randint(0, nk + 1, (heads,), device=dev, generator=g, dtype=torch.int32)
        lengths[0] = nk
        if heads > 2:
            lengths[2] = 0
        count = lengths.long()
    for h in range(heads):
        k[h, int(count[h]):] = math.nan
        v[h, int(count[h]):] = math.nan
    live = torch.arange(nk, device=dev)[None, :] < count[:, None]
    mask = live[:, None, :].expand(heads, nq, nk).clone()
    kw = {}
    if kernel.list_tile:
        t, qt = kernel.list_tile, -(-nq // 128)
        lists, ends = [], []
        for h in range(heads):
            for i in range(qt):
                n = -(-int(count[h]) // t)
                chosen = (torch.rand(n, device=dev, generator=g) < density).nonzero().flatten().int()
                if i % 3 == 2 and n > 0:
                    chosen = torch.cat([chosen[chosen < n - 1], torch.tensor([n - 1], device=dev, dtype=torch.int32)])
                lists.append(chosen)
                ends.append((ends[-1] if ends else 0) + chosen.numel())
                allowed = torch.zeros(n + 1, dtype=torch.bool, device=dev)
                allowed[chosen.long()] = True
                keys = allowed[(torch.arange(nk, device=dev) // t).clamp(max=n)]
                mask[h, i * 128:(i + 1) * 128] &= keys[None, :]
        tk = torch.cat(lists + [torch.zeros(1, device=dev, dtype=torch.int32)])
        kw.update(tile_keys=tk, tile_ends=torch.tensor(ends, device=dev, dtype=torch.int32), mean_tiles=ends[-1] / len(ends))
    log_count = None
    if kernel.bias:
        row = cap
        log_count = torch.log(torch.randint(1, 4097, (heads, row), device=dev, generator=g).float())
        log_count[:, 1::5] = 0.0
        log_count[:, 3::11] = -math.inf
        log_count[::2, :nk // 2] = 0.0  # whole stages without log-counts
        log_count[:, nk:] = math.nan
        kw["log_count"] = log_count
    dtype = torch.float32 if kernel.f32 else bf
    shape = (nq + 3, heads, dim)
    store = torch.full(shape, math.nan, device=dev, dtype=dtype)
    out = store.transpose(0, 1)[:, :nq] if strided else torch.full((heads, nq, dim), math.nan, device=dev, dtype=dtype)
    sums = torch.full((heads, nq), math.nan, device=dev)
    scale = dim ** -0.5
    run = kernel.prepare(q, k, v, out, keys=nk, log_sum=sums, lengths=lengths, pieces=pieces, whole=whole,
                         dynamic=dynamic, scale=scale, **kw)
    run()
    finish(torch, kernel, (heads, nq, nk))
    want, lse = reference(torch, q, k[:, :nk].nan_to_num(0.0), v[:, :nk].nan_to_num(0.0), scale,
                          None if log_count is None else log_count[:, :nk], mask)
    got = out.double()
    error = ((got - want).norm() / want.norm().clamp_min(1e-30)).item()
    if strided and not torch.isnan(store[nq:]).all():
        error = math.nan  # wrote past the last query
    both = torch.isinf(lse) & torch.isinf(sums)
    worst = torch.where(both, torch.zeros_like(lse), (sums.double() - lse).abs()).max().item()
    return error, worst


def checks(torch, kernels, report, cases):
    bad, total, start = [], 0, time.time()
    worst_error, worst_sum = 0.0, 0.0
    plain = [dict(heads=2, nq=1, nk=1), dict(heads=3, nq=7, nk=63), dict(heads=3, nq=63, nk=65, strided=True),
             dict(heads=2, nq=65, nk=7), dict(heads=3, nq=130, nk=1561, strided=True), dict(heads=2, nq=1561, nk=129),
             dict(heads=3, nq=257, nk=900, pieces=3, whole=2), dict(heads=5, nq=1561, nk=1000, dynamic=True),
             dict(heads=12, nq=1561, nk=700), dict(heads=3, nq=300, nk=1100, amplitude=60.0),
             dict(heads=3, nq=300, nk=1100, amplitude=1e-3), dict(heads=3, nq=128, nk=5000, pieces=7, whole=0, dynamic=True)]
    for job, kernel in kernels.items():
        for i, c in enumerate(plain[cases]):
            total += 1
            try:
                error, worst = case(torch, kernel, seed=i + 1, **c)
            except RuntimeError as e:
                print("CHECK FAILED", job, c, str(e)[:300], flush=True)
                report["checks"] = "device error"
                raise
            ok = error < 1e-2 and worst < 2e-2
            worst_error, worst_sum = max(worst_error, error), max(worst_sum, worst)
            if not ok:
                bad.append((job, c, error, worst))
                if len(bad) <= 24:
                    print("WRONG", job[0], dict(job[1]), c, f"error {error:.3g} log-sum {worst:.3g}", flush=True)
    print(f"checks: {total - len(bad)} of {total} right, worst error {worst_error:.2e}, worst log-sum {worst_sum:.2e}, "
          f"{time.time() - start:.1f} s", flush=True)
    report["checks"] = dict(total=total, wrong=len(bad), worst=worst_error, worst_log_sum=worst_sum)
    return {job for job, *_ in bad}


# ---- timing ----

def timed(torch, functions, rounds=5, batch=25.0, clocks=None):
    """Median ms of each function over rounds in random order of launches back to back for `batch` ms, so that
    launch gaps are hidden and clocks and heat fall on all alike. Fills `clocks` with the median SM clock in MHz."""
    import random
    import pynvml
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    times, seen, counts = {n: [] for n in functions}, {n: [] for n in functions}, {}

    def batch_of(fn, n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(n):
            fn()
        b.record()
        clock = pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM)
        b.synchronize()
        return a.elapsed_time(b) / n, clock

    for name, fn in functions.items():
        fn()
        counts[name] = max(2, int(batch / batch_of(fn, 2)[0]))
    order, rng = list(functions), random.Random(1)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            ms, clock = batch_of(functions[name], counts[name])
            times[name].append(ms)
            seen[name].append(clock)
    if clocks is not None:
        clocks.update({n: sorted(c)[len(c) // 2] for n, c in seen.items()})
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}


def sdpa(torch, backend, q, k, v):
    from torch.nn.attention import sdpa_kernel
    import torch.nn.functional as F

    def run():
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q[None], k[None], v[None])
    return run


def time_dense(torch, kernels, report, lengths, nq=4680, heads=12, dim=128, flash=True):
    from torch.nn.attention import SDPBackend
    rows = []
    for nk in lengths:
        q, k, v = (torch.randn(heads, n, dim, device="cuda", dtype=torch.bfloat16) for n in (nq, nk, nk))
        out = torch.empty_like(q)
        bias = torch.log(torch.randint(1, 65, (heads, -(-nk // 4) * 4), device="cuda").float())
        runs = {"cudnn": sdpa(torch, SDPBackend.CUDNN_ATTENTION, q, k, v)}
        if flash:
            runs["flash2"] = sdpa(torch, SDPBackend.FLASH_ATTENTION, q, k, v)
        for label, kernel, kw in kernels:
            if kernel.bias:
                kw = dict(kw, log_count=bias)
            runs[label] = kernel.prepare(q, k, v, out, **kw)
        clocks = {}
        t = timed(torch, runs, clocks=clocks)
        flops = 4 * nq * nk * heads * dim
        row = {"nk": nk, "dim": dim, **{n: round(flops / ms / 1e9, 1) for n, ms in t.items()}, "cudnn_ms": round(t["cudnn"], 3),
               "MHz": clocks}
        rows.append(row)
        print(row, flush=True)
        del q, k, v, out, bias, runs
        torch.cuda.empty_cache()
    report.setdefault("dense", []).extend(rows)


def time_sparse(torch, kernels, report, flex, heads=12, nq=4736, dim=128):
    for nk, density in ((32768, .2), (131072, .05)):
        q, k, v = (torch.randn(heads, n, dim, device="cuda", dtype=torch.bfloat16) for n in (nq, nk, nk))
        out = torch.empty_like(q)
        bias = torch.log(torch.randint(1, 65, (heads, nk), device="cuda").float())
        runs, work, made = {}, {}, {}
        for label, kernel, kw in kernels:
            tile = kernel.list_tile
            if tile not in made:
                keep = int(nk // tile * density)
                ids = torch.rand(heads, nq // 128, nk // tile, device="cuda").argsort(-1)[..., :keep].sort(-1).values.int()
                ends = (torch.arange(heads * nq // 128, device="cuda", dtype=torch.int32) + 1) * keep
                made[tile] = (ids.contiguous(), ends, keep)
            ids, ends, keep = made[tile]
            kw = dict(kw)
            if kw.pop("ragged", False):
                kw["lengths"] = torch.full((heads,), nk, device="cuda", dtype=torch.int32)
            runs[label] = kernel.prepare(q, k, v, out, tile_keys=ids.flatten(), tile_ends=ends,
                                         log_count=bias if kernel.bias else None, **kw)
            work[label] = 4 * nq * keep * tile * heads * dim
        if flex:
            from torch.nn.attention.flex_attention import BlockMask, flex_attention
            ids, _, keep = made[128]
            blocks = nk // 128
            order = torch.zeros(1, heads, nq // 128, blocks, device="cuda", dtype=torch.int32)
            order[0, :, :, :keep] = ids
            none = torch.zeros(1, heads, nq // 128, device="cuda", dtype=torch.int32)
            mask = BlockMask.from_kv_blocks(none, order, none + keep, order, BLOCK_SIZE=128, seq_lengths=(nq, nk))
            compiled = torch.compile(flex_attention)
            runs["flex"] = lambda: compiled(q[None], k[None], v[None], block_mask=mask)
            work["flex"] = 4 * nq * keep * 128 * heads * dim
        clocks = {}
        t = timed(torch, runs, clocks=clocks)
        row = {"nk": nk, "density": density, **{n: round(work[n] / ms / 1e9, 1) for n, ms in t.items()},
               "ms": {n: round(ms, 3) for n, ms in t.items()}, "MHz": clocks}
        report.setdefault("sparse", []).append(row)
        print(row, flush=True)


def machine(torch):
    q = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    text = subprocess.run(["nvidia-smi", f"--query-gpu={q}", "--format=csv,noheader"], capture_output=True, text=True)
    return text.stdout.strip() + f", torch {torch.__version__}"


def ceilings(torch, report):
    x = torch.empty(2 ** 30, dtype=torch.uint8, device="cuda").random_()
    y = torch.empty_like(x)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    t = timed(torch, {"copy": lambda: y.copy_(x), "gemm": lambda: a @ b})
    report["copy_TBps"] = round(2 * x.numel() / t["copy"] / 1e9, 2)
    report["gemm_TF"] = round(2 * 8192 ** 3 / t["gemm"] / 1e9, 1)
    print("ceilings", report["copy_TBps"], "TB/s", report["gemm_TF"], "TFLOP/s", flush=True)


def fp8_error(torch):
    """What rounding q, k, v to e4m3 (a scale for each head) does to the output: relative error of float64 attention."""
    q, k, v = (torch.randn(4, n, 128, device="cuda").to(torch.bfloat16) for n in (512, 4680, 4680))

    def round8(x):
        s = 448.0 / x.float().abs().amax((1, 2), keepdim=True)
        return (x.float() * s).to(torch.float8_e4m3fn).double() / s

    want, _ = reference(torch, q, k, v, 128 ** -0.5)
    errors = {}
    for name, parts in (("qk", (round8(q), round8(k), v)), ("v", (q, k, round8(v))), ("qkv", (round8(q), round8(k), round8(v)))):
        got, _ = reference(torch, *parts, 128 ** -0.5)
        errors[name] = round(((got - want).norm() / want.norm()).item(), 4)
    return errors


def dump_sass(kernels, jobs):
    for job in jobs:
        if job in kernels:
            name = "_".join(f"{k}{v}" for k, v in job[1])
            with open("/tmp/x.cubin", "wb") as f:
                f.write(kernels[job].cubin)
            text = subprocess.run(["cuobjdump", "--dump-sass", "/tmp/x.cubin"], capture_output=True, text=True).stdout
            with open(f"{OUT}/{name}.sass", "w") as f:
                f.write("\n".join(l[:100].rstrip() for l in text.splitlines() if "/* 0x" not in l[:60]))


def timing_set(kernels, tuned, args):
    """(dense, sparse) lists of (label, kernel, launch options)."""
    sm = "attend_sm90"
    dense = [(n, kernels[j], {}) for n, j in tuned.items() if j in kernels]
    dense += [(n + "_whole", kernels[j], dict(pieces=1)) for n, j in list(tuned.items())[:1] if j in kernels]
    mma = variant("attend_mma", HEAD_DIM=128)
    if mma in kernels:
        dense.append(("mma", kernels[mma], {}))
    sparse = []
    for tile in (64, 128):
        j = variant(sm, HEAD_DIM=128, LIST_TILE=tile)
        if j in kernels:
            sparse += [(f"list{tile}", kernels[j], {}), (f"list{tile}_dyn", kernels[j], dict(dynamic=True)),
                       (f"list{tile}_whole", kernels[j], dict(pieces=1))]
        j = variant(sm, HEAD_DIM=128, LIST_TILE=tile, BIAS=1, RAGGED=1)
        if j in kernels:
            sparse.append((f"list{tile}_bias", kernels[j], dict(ragged=True)))
    return dense, sparse


def tuned_variants(names):
    """Parses labels such as n160, bias160, n128s3, d64n128, n128-OUT_F32=1 into variants."""
    tuned = {}
    for label in names.split(","):
        head, *defines = label.split("-")
        dim = 64 if head.startswith("d64") else 128
        head = head.removeprefix("d64")
        extra = dict(d.split("=") for d in defines)
        if "s" in head.lstrip("bias"):
            head, stages = head.rsplit("s", 1)
            extra["STAGES"] = int(stages)
        if head.startswith("bias"):
            extra["BIAS"] = 1
        tuned[label] = variant("attend_sm90", HEAD_DIM=dim, BLOCK_N=int(head[-3:]), **extra)
    return tuned


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--mode", default="all", choices=("all", "small", "none"))
    p.add_argument("--no-check", action="store_true")
    p.add_argument("--cases", default="0:99", help="slice of the shapes checked for each variant")
    p.add_argument("--no-time", action="store_true")
    p.add_argument("--flex", action="store_true")
    p.add_argument("--sass", default="", help="labels whose disassembly to keep")
    p.add_argument("--tune", default="n160,n128,bias160,d64n160", help="labels of the dense variants to time")
    p.add_argument("--keys", default="128,512,4680,9360,18720,32760,65520,131040,262080,524160")
    args = p.parse_args()
    report = {}
    import torch
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    report["machine"] = machine(torch)
    print(report["machine"], flush=True)
    tuned = tuned_variants(args.tune)
    jobs = wanted(args.mode) if args.mode != "none" else []
    if not args.no_time:
        jobs += list(tuned.values())
    kernels = build(jobs, report)
    wrong = set()
    try:
        if not args.no_check:
            wrong = checks(torch, kernels, report, slice(*map(int, args.cases.split(":"))))
        if not args.no_time:
            ceilings(torch, report)
            dense, sparse = timing_set(kernels, tuned, args)
            keys = [int(x) for x in args.keys.split(",")]
            for dim in (128, 64):
                group = [x for x in dense if x[1].dim == dim]
                if group:
                    time_dense(torch, group, report, keys if dim == 128 else [x for x in keys if 4680 <= x < 40000], dim=dim)
            if sparse:
                time_sparse(torch, sparse, report, args.flex)
            report["fp8_error"] = fp8_error(torch)
            print("fp8 rounding error", report["fp8_error"], flush=True)
        if args.sass:
            dump_sass(kernels, [tuned[x] for x in args.sass.split(",")])
    finally:
        report["machine_after"] = machine(torch)
        report["wrong"] = [str(j) for j in wrong]
        with open(f"{OUT}/attend.json", "w") as f:
            json.dump(report, f, indent=1)
    print(report["machine_after"], flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
