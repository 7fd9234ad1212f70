#!/usr/bin/python3
"""Speed of the embedded world model under PyTorch on the CPU: the number to beat.

    /usr/bin/python3 dev/golden/torch_speed.py [repeats]

64x64 frames, float32, 4 steps and the clean pass a frame, window of 32 frames, steady state. Every thread count runs in
a process of its own, since OpenBLAS reads its thread count at start. Prints the median and best frames a second.
"""
import ctypes
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WINDOW, STEPS, BATCHES, FRAMES = 32, 4, 8, 4


def openblas():
    """Version and kernel of the OpenBLAS behind torch, if that is what libblas is."""
    try:
        lib = ctypes.CDLL("libblas.so.3")
        lib.openblas_get_config.restype = lib.openblas_get_corename.restype = ctypes.c_char_p
        return f"{lib.openblas_get_config().decode()}, kernel {lib.openblas_get_corename().decode()}"
    except (OSError, AttributeError):
        return "not OpenBLAS"


def measure(threads):
    import torch
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.join(ROOT, "train"))
    from infer import Roller
    from tw import CFG, PLACED, TinyWorld, load
    torch.set_num_threads(threads)
    sd = load(os.path.join(ROOT, "model", "tinyworld", "tinyworld.safetensors"))
    m = TinyWorld(PLACED if "place_in" in sd else CFG)
    m.load_state_dict(sd)
    tok = torch.zeros(1, 128, dtype=torch.long)
    tok[0, :105] = torch.randint(1, 95, (105,))
    act, head, eps = torch.ones(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), torch.randn(1, 64, 192)
    rates = []
    with torch.no_grad():
        r = Roller(m.eval(), tok, dict(kind="window", n=WINDOW))
        for _ in range(WINDOW):
            r.push(eps.clamp(-1, 1), act, head)
        for _ in range(2):
            r.sample(act, head, STEPS, shift=1.0, eps=eps)
        for _ in range(BATCHES):
            start = time.perf_counter()
            for _ in range(FRAMES):
                r.sample(act, head, STEPS, shift=1.0, eps=eps)
            rates.append(FRAMES / (time.perf_counter() - start))
    print(f"threads {threads}: median {statistics.median(rates):.2f}, best {max(rates):.2f} frames/s; "
          f"load {os.getloadavg()[0]:.1f}; torch {torch.__version__}; {openblas()}", flush=True)


def main():
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        for threads in ("1", "2"):
            env.update(OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads)
            subprocess.run([sys.executable, "-W", "ignore", __file__, "--measure", threads], env=env, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]))
    else:
        main()
