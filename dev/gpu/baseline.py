"""What PyTorch reaches on the same GPU: copy bandwidth and the matrix products of a Wan 1.3B block, by CUDA events."""
import statistics

import torch
import torch.nn.functional as F


def time_us(call, calls=24, repeats=15):
    """Median microseconds of one call, from graph replays."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    times = []
    for i in range(repeats + 3):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        graph.replay()
        b.record()
        b.synchronize()
        if i >= 3:
            times.append(a.elapsed_time(b) * 1e3 / calls)
    return statistics.median(times)


print(torch.__version__, torch.cuda.get_device_name())
x, y = torch.randn(1 << 28, device="cuda"), torch.empty(1 << 28, device="cuda")
us = time_us(lambda: y.copy_(x), 4)
print(f"copy 1 GiB: {us:.0f} us, {8 * x.numel() / us / 1e3:.0f} GB/s")
del x, y
tokens = 4680
for n_in, n_out in [(1536, 1536), (1536, 8960), (8960, 1536), (1536, 4608)]:
    a = torch.randn(tokens, n_in, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(n_out, n_in, device="cuda", dtype=torch.bfloat16) / n_in**0.5
    bias = torch.randn(n_out, device="cuda", dtype=torch.bfloat16)
    for name, call in [
        ("bf16", lambda: F.linear(a, w)),
        ("bf16 bias", lambda: F.linear(a, w, bias)),
        ("bf16 bias gelu", lambda: torch.ops.aten._addmm_activation(bias, a, w.t(), use_gelu=True)),
    ]:
        us = time_us(call)
        print(f"{tokens}x{n_in}x{n_out} {name}: {us:.1f} us, {2 * tokens * n_in * n_out / us / 1e6:.0f} TFLOP/s")
