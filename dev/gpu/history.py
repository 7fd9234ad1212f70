"""cuDNN's attention through PyTorch beside BenchmarkHistory: one layer of a chunk of Wan 1.3B over a whole past."""
import statistics
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, DIM, CHUNK, FRAME = 12, 128, 4680, 1560


def timed(fn):
    for _ in range(3):
        fn()
    times = []
    for _ in range(5):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        fn()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return statistics.median(times)


for history in (18, 250, 750):
    keys = history * FRAME + CHUNK
    q = torch.randn(1, HEADS, CHUNK, DIM, device="cuda", dtype=torch.bfloat16)
    k = torch.randn(1, HEADS, keys, DIM, device="cuda", dtype=torch.bfloat16)
    v = torch.randn_like(k)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        ms = timed(lambda: F.scaled_dot_product_attention(q, k, v))
    print(f"cuDNN history={history} keys={keys}: {ms:.3f} ms/layer, {4 * CHUNK * keys * HEADS * DIM / ms / 1e9:.1f} TFLOP/s", flush=True)
