// Writes the golden data of package world from the simulator that the embedded model
// was trained on. See README.md in this folder for how to build and run it.
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <vector>
#include <string>
#include <algorithm>

struct Run {
  u32 seed; int frames, kind, span;
  World w; short tok[NT]; std::vector<float> pose; std::vector<u8> act;
  Run(u32 seed, int frames, int kind, int span) : seed(seed), frames(frames), kind(kind), span(span), pose(frames * 3), act(frames) {
    memset(&w, 0, sizeof w);
    gen_episode(seed, frames, kind, 0, span, w, tok, pose.data(), act.data());
  }
};

// FNV-1a, 64 bits, over little-endian values in the order: 256 cells (1 byte each), prompt
// tokens without padding (2 bytes), actions (1 byte), poses (x and y as float32 bits, heading as 1 byte).
struct Digest {
  uint64_t h = 14695981039346656037ull;
  void bytes(const void* p, size_t n) { for (size_t i = 0; i < n; i++) h = (h ^ ((const u8*)p)[i]) * 1099511628211ull; }
};
static uint64_t digest(const Run& r) {
  Digest d;
  d.bytes(r.w.cell, sizeof r.w.cell);
  for (int i = 0; i < NT && r.tok[i]; i++) d.bytes(&r.tok[i], 2);
  d.bytes(r.act.data(), r.act.size());
  for (int t = 0; t < r.frames; t++) { u8 h = (u8)r.pose[t * 3 + 2]; d.bytes(&r.pose[t * 3], 8); d.bytes(&h, 1); }
  return d.h;
}

static void episode_json(FILE* f, const Run& r) {
  fprintf(f, "{\"seed\":%u,\"kind\":%d,\"span\":%d,\"map\":[", r.seed, r.kind, r.span);
  for (int y = 0; y < G; y++) {
    fprintf(f, "%s\"", y ? "," : "");
    for (int x = 0; x < G; x++) fputc(r.w.cell[y * G + x] ? '#' : pcell(r.w, x, y) ? 'o' : '.', f);
    fputc('"', f);
  }
  fprintf(f, "],\"tokens\":[");
  for (int i = 0; i < NT && r.tok[i]; i++) fprintf(f, "%s%d", i ? "," : "", r.tok[i]);
  fprintf(f, "],\"actions\":[");
  for (int t = 0; t < r.frames; t++) fprintf(f, "%s%d", t ? "," : "", r.act[t]);
  fprintf(f, "],\"poses\":[");
  for (int t = 0; t < r.frames; t++) fprintf(f, "%s[%.9g,%.9g,%d]", t ? "," : "", r.pose[t * 3], r.pose[t * 3 + 1], (int)r.pose[t * 3 + 2]);
  fprintf(f, "]}\n");
}

static void frame(FILE* image, FILE* list, const Run& r, int t, int W, int H) {
  std::vector<u8> px(W * H * 3); const float* p = &r.pose[t * 3];
  for (int i = 0; i < W * H; i++) render_px(r.w, p[0], p[1], p[2], W, H, i % W, i / W, &px[i * 3]);
  fwrite(px.data(), 1, px.size(), image);
  fprintf(list, "%u %d %d %d\n", r.seed, t, W, H);
}

// What a frame is chosen for: sky (6), texture (8), floor (6) of the room the player stands in, and
// colour (12) of its walls; a landmark (3 shapes) near and ahead; being close to a wall (1).
static uint64_t sights(const Run& r, int t) {
  float x = r.pose[t * 3], y = r.pose[t * 3 + 1], a = r.pose[t * 3 + 2] * (6.2831853f / NHEAD); int g = region(r.w, x, y);
  uint64_t s = 1ull << r.w.sky | 1ull << (6 + r.w.wtex[g]) | 1ull << (14 + r.w.flo[g]) | 1ull << (20 + r.w.wcol[g]);
  for (int i = 0; i < r.w.np; i++) { float dx = r.w.px[i] - x, dy = r.w.py[i] - y, far = sqrtf(dx * dx + dy * dy);
    if (far < 2.5f && (dx * sinf(a) - dy * cosf(a)) / far > 0.95f && r.w.preg[i] == g) s |= 1ull << (32 + r.w.ptype[i]); }
  if (blocked(r.w, x + 0.1f * sinf(a), y - 0.1f * cosf(a))) s |= 1ull << 35;
  return s;
}

static FILE* open_in(const char* dir, const char* name, const char* mode) {
  std::string path = std::string(dir) + "/" + name; FILE* f = fopen(path.c_str(), mode);
  if (!f) { perror(path.c_str()); exit(1); }
  return f;
}

static void golden(const char* dir) {
  const int spans[6] = {0, 30, 0, 40, 40, 0};
  FILE* f = open_in(dir, "episodes.jsonl", "w");
  for (int kind = 0; kind < 6; kind++) for (u32 i = 0; i < 6; i++) episode_json(f, Run(1000 + 1000 * kind + i, 96, kind, spans[kind]));
  fclose(f); f = open_in(dir, "digests.txt", "w");
  for (int kind = 0; kind < 6; kind++) for (u32 i = 0; i < 500; i++) {
    int span = spans[kind] ? 1 + (i * 7) % 60 : 0; Run r(i * 2654435761u + kind, 96, kind, span);
    fprintf(f, "%u %d %d %016llx\n", r.seed, kind, span, (unsigned long long)digest(r));
  }
  fclose(f);
  FILE* image = open_in(dir, "frames.rgb", "wb"); FILE* list = open_in(dir, "frames.txt", "w"); uint64_t seen = 0; int n = 0;
  for (int want = 4; want > 0; want--) // the frames that show most first, so that few suffice
    for (u32 seed = 1; seed < 400 && n < 20; seed++) { Run r(seed, 64, 0, 0);
      for (int t = 0; t < 64 && n < 20; t += 7) if (__builtin_popcountll(sights(r, t) & ~seen) >= want) { seen |= sights(r, t); frame(image, list, r, t, 64, 64); n++; break; } }
  if (seen != (1ull << 36) - 1) { fprintf(stderr, "only %llx of all sights in %d frames\n", (unsigned long long)seen, n); exit(1); }
  for (u32 seed = 3000; seed < 3004; seed++) frame(image, list, Run(seed, 1, 0, 0), 0, 64, 64);
  frame(image, list, Run(1000, 1, 0, 0), 0, 96, 54); frame(image, list, Run(1001, 1, 0, 0), 0, 33, 47);
  frame(image, list, Run(1002, 1, 0, 0), 0, 128, 128); frame(image, list, Run(1003, 1, 0, 0), 0, 192, 128);
  fclose(image); fclose(list);
}

int main(int argc, char** argv) {
  std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "golden" && argc == 3) { golden(argv[2]); return 0; }
  if (mode == "digests" && argc == 7) { // kind span frames seed count: one digest a line
    int kind = atoi(argv[2]), span = atoi(argv[3]), frames = atoi(argv[4]), n = atoi(argv[6]); u32 seed = strtoul(argv[5], 0, 10);
    for (int i = 0; i < n; i++) printf("%016llx\n", (unsigned long long)digest(Run(seed + i, frames, kind, span)));
    return 0;
  }
  if (mode == "frames" && argc == 5) { // seed count frames: 64x64 frames of mixed episodes, raw
    u32 seed = strtoul(argv[2], 0, 10); int n = atoi(argv[3]), frames = atoi(argv[4]); FILE* nul = fopen("/dev/null", "w");
    for (int i = 0; i < n; i++) { Run r(seed + i, frames, 0, 0); for (int t = 0; t < frames; t++) frame(stdout, nul, r, t, 64, 64); }
    return 0;
  }
  fprintf(stderr, "usage: driver golden DIR | digests KIND SPAN FRAMES SEED COUNT | frames SEED COUNT FRAMES\n"); return 2;
}
