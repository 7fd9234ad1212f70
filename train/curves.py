"""Draw logs/sitting-*.json as curves.svg, or with a name logs/NAME-*.json as curves-NAME.svg: loss and the error of frame 0 over all
frames trained on."""
import glob
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
W, H, LEFT, BOTTOM = 720, 300, 60, 40


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    lines, frames = {"loss": [], "error at t > .95": [], "error of frame 0": []}, 0
    marks = []
    logs = glob.glob(os.path.join(HERE, "logs", (name or "sitting") + "-*.json"))
    for path in sorted(logs, key=lambda path: int(path[:-5].rsplit("-", 1)[1])):
        with open(path) as f:
            t = json.load(f)["train"]
        per = t["frames"] / max(t["steps"], 1)
        marks.append(frames)
        for step, _, loss, high, first, *_ in t["log"]:
            if step >= 60 and loss > 0.009:  # lines of sitting 2's sharpening have another loss
                for line, v in zip(lines.values(), (loss, high, first)):
                    line.append((frames + step * per, v))
        frames += t["frames"]
    low, high = math.log10(0.006), math.log10(0.05)
    def at(x, y):
        return LEFT + x / frames * (W - LEFT - 20), H - BOTTOM - (math.log10(y) - low) / (high - low) * (H - BOTTOM - 20)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" font-family="sans-serif" font-size="12">',
           f'<rect width="{W}" height="{H}" fill="white"/>']
    for v in (0.006, 0.01, 0.02, 0.05):
        _, y = at(0, v)
        out.append(f'<path d="M{LEFT} {y:.0f}H{W - 20}" stroke="#ddd"/><text x="8" y="{y + 4:.0f}">{v}</text>')
    for i, x in enumerate(marks):
        px, _ = at(x, 0.01)
        out.append(f'<path d="M{px:.0f} 20V{H - BOTTOM}" stroke="#bbb"/><text x="{px + 4:.0f}" y="{H - 8}">sitting {i + 1}, {x / 1e6:.1f} M frames</text>')
    for (what, line), colour in zip(lines.items(), ("#c33", "#36c", "#393")):
        points = " ".join(f"{x:.0f},{y:.1f}" for x, y in (at(*p) for p in line))
        x, y = at(*line[-1])
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/><text x="{x - 100:.0f}" y="{y - 8:.0f}" fill="{colour}">{what}</text>')
    with open(os.path.join(HERE, f"curves-{name}.svg" if name else "curves.svg"), "w") as f:
        f.write("\n".join(out + ["</svg>", ""]))


if __name__ == "__main__":
    main()
