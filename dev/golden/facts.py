#!/usr/bin/python3
"""Carry what identifies the embedded weights (hashes, sizes, counts) to the texts and tests that state it.

    python3 dev/golden/facts.py

The facts are read from model/tinyworld with json, struct and math alone; the old ones are those that model/tinyworld/README.md and
weights/file_test.go state. dev/ship-weights.sh runs it.
"""
import hashlib
import json
import math
import os
import re
import struct
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(ROOT, path), "rb") as f:
        return f.read()


def rewrite(path, change):
    old = read(path).decode()
    new = change(old)
    if new != old:
        with open(os.path.join(ROOT, path), "w") as f:
            f.write(new)
        print("changed", path)


def bf16(raw):
    return [struct.unpack("<f", b"\0\0" + raw[i:i + 2])[0] for i in range(0, len(raw), 2)]


def facts():
    raw = read("model/tinyworld/tinyworld.safetensors")
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
    header.pop("__metadata__", None)
    names = sorted(header)
    parts = {k: data[slice(*header[k]["data_offsets"])] for k in names}
    everything = hashlib.sha256(b"".join(k.encode() + parts[k] for k in names)).hexdigest()
    values = bf16(parts["act_e"])
    return dict(sha=hashlib.sha256(raw).hexdigest(), bytes=len(raw), tensors=len(names), parameters=sum(map(len, parts.values())) // 2,
                all=everything, shape=header["act_e"]["shape"], start=values[:3], sum=math.fsum(values), squares=math.fsum(v * v for v in values))


def main():
    new, readme, test = facts(), read("model/tinyworld/README.md").decode(), read("weights/file_test.go").decode()
    tensors, parameters, size, sha = re.search(r"(\d+) tensors, ([\d,]+) parameters, all bf16, ([\d,]+) bytes \| `(\w{64})`", readme).groups()
    checksum = re.search(r"len\(f.Names\(\)\) != (\d+) \|\| elems != (\d+) \|\| got != \"(\w{64})\"", test).group(3)
    words = {sha: new["sha"], checksum: new["all"], size: f"{new['bytes']:,}", size.replace(",", ""): str(new["bytes"]),
             parameters: f"{new['parameters']:,}", parameters.replace(",", ""): str(new["parameters"]),
             f"{tensors} tensors": f"{new['tensors']} tensors", f"len(f.Names()) != {tensors} ": f"len(f.Names()) != {new['tensors']} "}
    for file in ("config.json", "vocab.json"):
        old = re.search(rf"`{file}` \|[^|]*\| `(\w{{64}})`", readme).group(1)
        words[old] = hashlib.sha256(read("model/tinyworld/" + file)).hexdigest()

    def replace(text):
        for a, b in words.items():
            text = text.replace(a, b)
        return text

    texts = subprocess.check_output(["git", "-C", ROOT, "grep", "-lIF", *[x for a in words for x in ("-e", a)], "--", "*.go", "*.md"], text=True)
    for path in texts.split():
        if path != "dev/LOG.md":
            rewrite(path, replace)
    shape, start = "{%s}" % ", ".join(map(str, new["shape"])), "{%s}" % ", ".join(map(repr, new["start"]))

    def values(text):
        text = re.sub(r"(h.Shape, \[\]int)\{[^}]*\}", lambda m: m.group(1) + shape, text)
        text = re.sub(r"(x\[:3\], \[\]float32)\{[^}]*\}", lambda m: m.group(1) + start, text)
        text = re.sub(r"Abs\(sum-[^)]*\)", lambda m: f"Abs(sum-{new['sum']!r})".replace("--", "+"), text)
        return re.sub(r"Abs\(squares-[^)]*\)", f"Abs(squares-{new['squares']!r})", text)
    rewrite("weights/file_test.go", values)


if __name__ == "__main__":
    main()
