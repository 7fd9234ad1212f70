// First-person maze: world, prompt and walk from a seed; for CUDA (nvcc) and the CPU (g++ -x c++).
// Integers and hashes are exact on both; the trigonometry of the walk may differ in the last bits.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __CUDACC__
#define DEV __host__ __device__
#else
#define DEV
#endif
typedef unsigned int u32;
typedef unsigned char u8;
#define G 16
#define MAXP 5
#define NT 128    // prompt tokens
#define NHEAD 30  // headings of 12 degrees; 0 = north, grows to the right (east)
#define PR 0.22f  // player radius
#define EYE 0.5f
#define WALLH 1.25f
#define FOVT 0.7265f  // tan(36 deg): 72 degrees
#define STEP 0.22f

// 16x16 cells (1 = wall), 3x3 rooms between the wall lines xs and ys, and up to 5 landmarks.
struct World {
  u8 cell[G * G];
  u8 wtex[9], wcol[9], flo[9];
  u8 sky, np;
  u8 ptype[MAXP], pcol[MAXP], preg[MAXP];
  u8 xs[4], ys[4];
  u8 start_reg;
  u8 pad[2];
  float px[MAXP], py[MAXP];
  u32 seed;
};

struct Rng {
  u32 s;
};

DEV inline u32 hash32(u32 x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

DEV inline u32 rnd(Rng& r) {
  r.s = r.s * 747796405u + 2891336453u;
  return hash32(r.s);
}

DEV inline int ri(Rng& r, int n) { return (int)(((unsigned long long)rnd(r) * (unsigned)n) >> 32); }
DEV inline float rf(Rng& r) { return (rnd(r) >> 8) * (1.0f / 16777216.0f); }

DEV inline float hf(u32 a, u32 b, u32 c) {
  return (hash32(a * 0x9E3779B1u ^ hash32(b * 0x85EBCA77u ^ hash32(c))) >> 8) * (1.0f / 16777216.0f);
}

DEV inline int regx(const World& w, float x) { return x < w.xs[1] + 0.5f ? 0 : (x < w.xs[2] + 0.5f ? 1 : 2); }
DEV inline int regy(const World& w, float y) { return y < w.ys[1] + 0.5f ? 0 : (y < w.ys[2] + 0.5f ? 1 : 2); }
DEV inline int region(const World& w, float x, float y) { return regy(w, y) * 3 + regx(w, x); }
DEV inline bool solid(const World& w, int x, int y) { return x < 0 || y < 0 || x >= G || y >= G || w.cell[y * G + x]; }

// Whether a player of radius PR at (x, y) touches a wall or a landmark.
DEV inline bool blocked(const World& w, float x, float y) {
  for (int dy = -1; dy <= 1; dy += 2)
    for (int dx = -1; dx <= 1; dx += 2)
      if (solid(w, (int)floorf(x + dx * PR), (int)floorf(y + dy * PR))) return true;
  for (int i = 0; i < w.np; i++) {
    float r = (w.ptype[i] == 1 ? 0.27f : 0.18f) + PR;
    float ax = x - w.px[i], ay = y - w.py[i];
    if (ax * ax + ay * ay < r * r) return true;
  }
  return false;
}

// actions: 0 noop 1 forward 2 back 3 left 4 right 5 forward+left 6 forward+right 7 strafe left 8 strafe right
DEV inline int turned(int h, int a) {
  if (a == 3 || a == 5) return (h + NHEAD - 1) % NHEAD;
  if (a == 4 || a == 6) return (h + 1) % NHEAD;
  return h;
}

DEV inline bool moves(int a) { return a != 0 && a != 3 && a != 4; }

// The way an action asks for at heading h, which is the one after its turn.
DEV inline void stride(int h, int a, float& dx, float& dy) {
  float an = h * (6.2831853f / NHEAD);
  if (a >= 7) {
    float side = a == 8 ? STEP : -STEP;
    dx = side * cosf(an);
    dy = side * sinf(an);
  } else {
    float f = a == 2 ? -STEP : STEP;
    dx = f * sinf(an);
    dy = -f * cosf(an);
  }
}

DEV inline void step(const World& w, float& x, float& y, int& h, int a) {
  h = turned(h, a);
  if (!moves(a)) return;
  float dx, dy;
  stride(h, a, dx, dy);
  float nx = x + dx, ny = y + dy;
  if (!blocked(w, nx, y)) x = nx;
  if (!blocked(w, x, ny)) y = ny;
}

// Whether anything would be in the way of an action.
DEV inline bool hits(const World& w, float x, float y, int h, int a) {
  if (!moves(a)) return false;
  h = turned(h, a);
  float dx, dy;
  stride(h, a, dx, dy);
  return blocked(w, x + dx, y) || blocked(w, x + dx, y + dy);
}

// Prompt vocabulary (see vocab.py, which mirrors these offsets)
enum {
  V_PAD = 0,
  V_A,
  V_MAZE,
  V_YOU,
  V_START,
  V_IN,
  V_THE,
  V_SKY,
  V_IS,
  V_COLON,
  V_COMMA,
  V_DOT,
  V_WALLS,
  V_FLOOR,
  V_WITH,
  V_AND,
  V_DIR = 16 /*9*/,
  V_COL = 25 /*12x2*/,
  V_TEX = 49 /*8x2*/,
  V_FLO = 65 /*6x2*/,
  V_SKYT = 77 /*6x2*/,
  V_PT = 89 /*3x2*/,
  V_END = 95
};

DEV inline void gen_world(World& w, Rng& r) {
  w.seed = rnd(r);
  for (int i = 0; i < G * G; i++) w.cell[i] = 0;
  w.xs[0] = w.ys[0] = 0;
  w.xs[3] = w.ys[3] = G - 1;
  w.xs[1] = 4 + ri(r, 3);
  w.xs[2] = 9 + ri(r, 3);
  w.ys[1] = 4 + ri(r, 3);
  w.ys[2] = 9 + ri(r, 3);
  for (int i = 0; i < G; i++)
    for (int k = 0; k < 4; k++) {
      w.cell[w.ys[k] * G + i] = 1;
      w.cell[i * G + w.xs[k]] = 1;
    }
  int par[9];
  for (int i = 0; i < 9; i++) par[i] = i;
  int ord[12];
  for (int i = 0; i < 12; i++) ord[i] = i;
  for (int i = 11; i > 0; i--) {
    int j = ri(r, i + 1);
    int t = ord[i];
    ord[i] = ord[j];
    ord[j] = t;
  }
  for (int q = 0; q < 12; q++) {
    int e = ord[q];
    int vert = e < 6;
    int a, b, rx, ry;
    if (vert) {
      ry = e / 2;
      rx = e % 2;
      a = ry * 3 + rx;
      b = a + 1;
    } else {
      int f = e - 6;
      ry = f / 3;
      rx = f % 3;
      a = ry * 3 + rx;
      b = a + 3;
    }
    int ra = a, rb = b;
    while (par[ra] != ra) ra = par[ra];
    while (par[rb] != rb) rb = par[rb];
    if (ra == rb && rf(r) > 0.4f) continue;
    par[ra] = rb;
    int lo = vert ? w.ys[ry] + 1 : w.xs[rx] + 1, hi = vert ? w.ys[ry + 1] - 1 : w.xs[rx + 1] - 1, n = hi - lo + 1;
    float p = rf(r);
    int wd = p < 0.45f ? 1 : (p < 0.8f ? 2 : n - 1);
    if (wd > n) wd = n;
    if (wd < 1) wd = 1;
    int s = lo + ri(r, n - wd + 1);
    for (int i = s; i < s + wd; i++) {
      if (vert)
        w.cell[i * G + w.xs[rx + 1]] = 0;
      else
        w.cell[w.ys[ry + 1] * G + i] = 0;
    }
  }
  for (int ry = 0; ry < 3; ry++)
    for (int rx = 0; rx < 3; rx++) {
      int x0 = w.xs[rx] + 1, x1 = w.xs[rx + 1] - 1, y0 = w.ys[ry] + 1, y1 = w.ys[ry + 1] - 1;
      if (x1 - x0 >= 3 && y1 - y0 >= 3 && rf(r) < 0.45f)
        w.cell[(y0 + 1 + ri(r, y1 - y0 - 1)) * G + x0 + 1 + ri(r, x1 - x0 - 1)] = 1;
    }
  for (int i = 0; i < 9; i++) {
    w.wtex[i] = ri(r, 8);
    w.wcol[i] = ri(r, 12);
    w.flo[i] = ri(r, 6);
  }
  w.sky = ri(r, 6);
  w.np = 0;
  int want = 2 + ri(r, 4);
  for (int k = 0; k < want; k++) {
    int rx = ri(r, 3), ry = ri(r, 3);
    bool dup = false;
    for (int i = 0; i < w.np; i++)
      if (w.preg[i] == ry * 3 + rx) dup = true;
    if (dup) continue;
    int x = w.xs[rx] + 1 + ri(r, w.xs[rx + 1] - w.xs[rx] - 1), y = w.ys[ry] + 1 + ri(r, w.ys[ry + 1] - w.ys[ry] - 1);
    if (w.cell[y * G + x]) continue;
    int i = w.np++;
    w.px[i] = x + 0.5f;
    w.py[i] = y + 0.5f;
    w.ptype[i] = ri(r, 3);
    w.pcol[i] = ri(r, 12);
    w.preg[i] = ry * 3 + rx;
  }
}

DEV inline bool pcell(const World& w, int x, int y) {
  for (int i = 0; i < w.np; i++)
    if ((int)w.px[i] == x && (int)w.py[i] == y) return true;
  return false;
}

DEV inline void gen_prompt(const World& w, Rng& r, short* tok) {
  int n = 0;
  for (int i = 0; i < NT; i++) tok[i] = 0;
#define PUT(x)                         \
  do {                                 \
    if (n < NT) tok[n++] = (short)(x); \
  } while (0)
  PUT(V_YOU);
  PUT(V_START);
  PUT(V_IN);
  PUT(V_THE);
  PUT(V_DIR + w.start_reg);
  PUT(V_DOT);
  PUT(V_THE);
  PUT(V_SKY);
  PUT(V_IS);
  PUT(V_SKYT + w.sky * 2 + ri(r, 2));
  PUT(V_DOT);
  int ord[9];
  for (int i = 0; i < 9; i++) ord[i] = i;
  if (rf(r) < 0.5f)
    for (int i = 8; i > 0; i--) {
      int j = ri(r, i + 1);
      int t = ord[i];
      ord[i] = ord[j];
      ord[j] = t;
    }
  for (int i = 0; i < 9; i++)
    if (ord[i] == w.start_reg) {
      for (int k = i; k > 0; k--) ord[k] = ord[k - 1];
      ord[0] = w.start_reg;
      break;
    }  // the clause of the starting region comes first
  for (int q = 0; q < 9; q++) {
    int g = ord[q];
    PUT(V_DIR + g);
    PUT(V_COLON);
    PUT(V_COL + w.wcol[g] * 2 + ri(r, 2));
    PUT(V_TEX + w.wtex[g] * 2 + ri(r, 2));
    PUT(V_WALLS);
    PUT(V_COMMA);
    PUT(V_FLO + w.flo[g] * 2 + ri(r, 2));
    PUT(V_FLOOR);
    for (int i = 0; i < w.np; i++)
      if (w.preg[i] == g) {
        PUT(V_COMMA);
        PUT(V_A);
        PUT(V_COL + w.pcol[i] * 2 + ri(r, 2));
        PUT(V_PT + w.ptype[i] * 2 + ri(r, 2));
      }
    PUT(V_DOT);
  }
}

// Steps from every cell to (tx, ty); 255 = no way.
DEV inline void bfs(const World& w, int tx, int ty, u8* dist) {
  u8 q[G * G];
  int a = 0, b = 0;
  for (int i = 0; i < G * G; i++) dist[i] = 255;
  dist[ty * G + tx] = 0;
  q[b++] = (u8)(ty * G + tx);
  while (a < b) {
    int c = q[a++], x = c % G, y = c / G;
    const int dx[4] = {1, -1, 0, 0}, dy[4] = {0, 0, 1, -1};
    for (int k = 0; k < 4; k++) {
      int nx = x + dx[k], ny = y + dy[k];
      if (solid(w, nx, ny) || pcell(w, nx, ny)) continue;
      int m = ny * G + nx;
      if (dist[m] == 255) {
        dist[m] = dist[c] + 1;
        q[b++] = (u8)m;
      }
    }
  }
}
