"""Weights between two sets of the same network: python3 train/mix.py A.safetensors B.safetensors SHARE OUT.safetensors

SHARE of the way from A to B, rounded to bf16. What a sitting did too much of is found in the right measure on the way to it.
"""
import sys

from tw import load, write_safetensors


def main():
    a, b, share, out = load(sys.argv[1]), load(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    if {k: v.shape for k, v in a.items()} != {k: v.shape for k, v in b.items()}:
        raise SystemExit(f"{sys.argv[1]} and {sys.argv[2]} are not of one network: names or shapes differ")
    write_safetensors({k: (v + (b[k] - v) * share).bfloat16() for k, v in a.items()}, out)


if __name__ == "__main__":
    main()
