// Ray-caster: the colour of a pixel, from a pose in a world. 3x3 samples a pixel, fog, face shading.
#pragma once
#include "maze.h"

struct C3 {
  float r, g, b;
};

DEV inline C3 c3(float r, float g, float b) {
  C3 c;
  c.r = r;
  c.g = g;
  c.b = b;
  return c;
}

DEV inline C3 mul(C3 a, float s) { return c3(a.r * s, a.g * s, a.b * s); }

DEV inline C3 mix3(C3 a, C3 b, float t) {
  return c3(a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t);
}

DEV inline C3 palette(int i) {
  const float P[12][3] = {{.82f, .20f, .16f}, {.92f, .52f, .14f}, {.93f, .83f, .25f}, {.25f, .62f, .24f},
                          {.20f, .38f, .82f}, {.52f, .27f, .72f}, {.92f, .52f, .68f}, {.90f, .90f, .88f},
                          {.50f, .51f, .54f}, {.50f, .33f, .19f}, {.20f, .20f, .23f}, {.20f, .70f, .70f}};
  return c3(P[i][0], P[i][1], P[i][2]);
}

DEV inline C3 skyhor(int s) {
  const float P[6][3] = {{.74f, .86f, .96f}, {.98f, .68f, .38f}, {.16f, .18f, .32f},
                         {.70f, .72f, .74f}, {.96f, .74f, .78f}, {.62f, .86f, .68f}};
  return c3(P[s][0], P[s][1], P[s][2]);
}

DEV inline C3 skytop(int s) {
  const float P[6][3] = {{.22f, .48f, .88f}, {.45f, .22f, .50f}, {.02f, .03f, .12f},
                         {.46f, .49f, .53f}, {.50f, .52f, .84f}, {.10f, .38f, .38f}};
  return c3(P[s][0], P[s][1], P[s][2]);
}

DEV inline float frac(float x) { return x - floorf(x); }

DEV inline float sstep(float a, float b, float x) {
  float t = (x - a) / (b - a);
  t = t < 0 ? 0 : (t > 1 ? 1 : t);
  return t * t * (3 - 2 * t);
}

DEV inline float vnoise(float x, float y, u32 s) {
  int ix = (int)floorf(x), iy = (int)floorf(y);
  float fx = x - ix, fy = y - iy;
  fx = fx * fx * (3 - 2 * fx);
  fy = fy * fy * (3 - 2 * fy);
  float a = hf(ix, iy, s), b = hf(ix + 1, iy, s), c = hf(ix, iy + 1, s), d = hf(ix + 1, iy + 1, s);
  return a + (b - a) * fx + (c - a) * fy + (a - b - c + d) * fx * fy;
}

DEV inline C3 sky(int s, float ang, float v) {  // ang 0..2pi compass, v<0 above the horizon
  float up = -v;
  float t = up / 0.72f;
  t = t > 1 ? 1 : (t < 0 ? 0 : t);
  C3 c = mix3(skyhor(s), skytop(s), sqrtf(t));
  float sa = (s == 2) ? 4.712389f : 1.5707963f;
  float da = ang - sa;
  if (da > 3.14159265f) da -= 6.2831853f;
  if (da < -3.14159265f) da += 6.2831853f;
  float rad = sqrtf(da * da + (up - 0.42f) * (up - 0.42f));
  if (s != 3) c = mix3(c, s == 2 ? c3(.92f, .94f, 1.f) : c3(1.f, .95f, .70f), 1.f - sstep(0.085f, 0.115f, rad));
  if (s == 2) {
    float a = ang * 14.f / 6.2831853f * 3.f, b = up * 14.f;
    int ia = (int)floorf(a), ib = (int)floorf(b);
    float hx = 0.25f + 0.5f * hf(ia, ib, 7u), hy = 0.25f + 0.5f * hf(ia, ib, 8u);
    float d = (a - ia - hx) * (a - ia - hx) + (b - ib - hy) * (b - ib - hy);
    if (hf(ia, ib, 9u) < 0.35f) c = mix3(c, c3(1, 1, 1), 1.f - sstep(0.01f, 0.05f, d));
  } else {
    float cl = 0.5f + 0.25f * sinf(ang * 3.f + 1.f) + 0.25f * sinf(ang * 5.f + up * 9.f);
    float band = expf(-(up - 0.55f) * (up - 0.55f) / 0.02f);
    c = mix3(c, c3(1, 1, 1), 0.55f * band * sstep(0.45f, 0.8f, cl));
  }
  float mt = 0.13f + 0.055f * sinf(ang * 2.f + 0.6f) + 0.045f * sinf(ang * 5.f + 2.f) + 0.03f * fabsf(sinf(ang * 9.f));
  float n = ang;
  if (n > 3.14159265f) n -= 6.2831853f;
  mt += 0.22f * expf(-n * n / 0.05f);
  if (up < mt) {
    C3 m = mix3(mul(skyhor(s), 0.55f), c3(.25f, .30f, .42f), 0.45f);
    if (up > mt - 0.06f && mt > 0.24f) m = mix3(m, c3(.95f, .95f, 1.f), 0.7f);
    c = m;
  }
  return c;
}

// Wall colour of room g on the face `side` of cell (cxx, cyy); u along the face, v height; a few faces bear a painting.
DEV inline C3 wallcol(const World& w, int g, int cxx, int cyy, int side, float u, float v, float dist) {
  int tx = w.wtex[g];
  C3 paint = palette(w.wcol[g]);
  float det = 1.f / (1.f + (dist * dist) / 40.f);
  C3 c = paint;
  float m = 1.f;
  u32 sd = w.seed;
  int wu = (int)(cxx * 31 + cyy * 17 + side * 7);
  if (tx == 0) {
    float rr = v / 0.2f;
    int row = (int)rr;
    float uu = u * 2.5f + (row & 1) * 0.5f;
    int col = (int)floorf(uu);
    float fu = frac(uu), fv = frac(rr);
    float mort = (fu < 0.09f || fv < 0.16f) ? 1.f : 0.f;
    m = 0.92f + 0.2f * hf(row * 57 + col, wu, sd);
    c = mix3(mul(paint, m), c3(.78f, .76f, .72f), 0.75f * mort * det);
  } else if (tx == 1) {
    float rr = v / 0.4f;
    int row = (int)rr;
    float uu = u * 2.f + (row & 1) * 0.5f;
    int col = (int)floorf(uu);
    float fu = frac(uu), fv = frac(rr);
    float j = (fu < 0.08f || fv < 0.10f) ? 1.f : 0.f;
    m = 0.85f + 0.3f * hf(row * 57 + col, wu, sd);
    C3 st = mix3(paint, c3(.55f, .55f, .55f), 0.35f);
    c = mix3(mul(st, m), c3(.16f, .16f, .17f), 0.7f * j * det);
  } else if (tx == 2) {
    float uu = u * 4.f;
    int col = (int)uu;
    float fu = frac(uu);
    m = 0.86f + 0.24f * hf(col, wu, sd);
    c = mul(mix3(paint, c3(.45f, .30f, .16f), 0.35f), m);
    if (fu < 0.12f) c = mul(c, 1.f - 0.6f * det);
    if (frac(v / 0.62f) < 0.09f) c = mul(c, 1.f - 0.35f * det);
  } else if (tx == 3) {
    float n = vnoise(u * 8.f + cxx * 3.f, v * 8.f + cyy * 5.f, sd);
    m = 0.62f + 0.66f * (0.5f + (n - 0.5f) * det);
    c = mul(mix3(paint, c3(.12f, .36f, .10f), 0.45f), m);
  } else if (tx == 4) {
    int a = (int)(u * 4.f), b = (int)(v * 4.f);
    float fu = frac(u * 4.f), fv = frac(v * 4.f);
    m = ((a + b) & 1) ? 1.08f : 0.80f;
    m = 1.f + (m - 0.94f) * det - 0.06f;
    c = mul(paint, m);
    if (fu < 0.1f || fv < 0.1f) c = mix3(c, c3(.95f, .95f, .95f), 0.55f * det);
  } else if (tx == 5) {
    float fv = frac(v / 0.42f);
    m = 0.72f + 0.5f * fabsf(fv - 0.5f) * 2.f * 0.8f;
    c = mul(mix3(paint, c3(.62f, .65f, .70f), 0.40f), m);
    float fu = frac(u * 2.f);
    if (fv < 0.10f || fu < 0.05f) c = mul(c, 1.f - 0.55f * det);
  } else if (tx == 6) {
    c = mix3(paint, c3(.93f, .90f, .84f), 0.30f);
    if (v < 0.16f) c = mul(paint, 0.45f);
    if (v > 1.08f) c = mul(paint, 0.65f);
  } else {
    float k = frac((u * 2.f + v * 2.f));
    m = k < 0.5f ? 1.12f : 0.72f;
    m = 0.92f + (m - 0.92f) * det;
    c = mul(mix3(paint, c3(1, 1, 1), 0.15f), m);
  }
  if (hf(cxx * 64 + cyy, side + 77, sd) < 0.13f) {
    float a = fabsf(u - 0.5f), b = fabsf(v - 0.68f);
    if (a < 0.27f && b < 0.27f) {
      if (a > 0.21f || b > 0.21f)
        c = c3(.22f, .14f, .06f);
      else {
        int k = (int)(hf(cxx * 64 + cyy, side + 99, sd) * 12.f);
        c = palette(k);
        if (b < 0.07f) c = mix3(c, c3(1, 1, 1), 0.6f);
      }
    }
  }
  return c;
}

DEV inline C3 floorcol(const World& w, float x, float y, float dist) {
  int g = region(w, x, y);
  int f = w.flo[g];
  float det = 1.f / (1.f + dist * dist / 12.f);
  C3 c;
  float fx = frac(x), fy = frac(y);
  if (f == 0) {
    float n = vnoise(x * 5.f, y * 5.f, w.seed);
    c = mul(c3(.30f, .58f, .22f), 0.82f + 0.4f * (0.5f + (n - 0.5f) * det));
  } else if (f == 1) {
    float n = vnoise(x * 4.f, y * 4.f, w.seed + 1);
    c = mul(c3(.86f, .76f, .52f), 0.88f + 0.22f * (0.5f + (n - 0.5f) * det));
  } else if (f == 2) {
    int k = ((int)floorf(x * 2.f) + (int)floorf(y * 2.f)) & 1;
    float a = k ? 0.92f : 0.18f;
    a = 0.55f + (a - 0.55f) * (0.3f + 0.7f * det);
    c = c3(a, a, a * 0.97f);
  } else if (f == 3) {
    float j = (frac(x * 1.f) < 0.07f || frac(y * 1.f) < 0.07f) ? 1.f : 0.f;
    float m = 0.9f + 0.2f * hf((int)floorf(x), (int)floorf(y), w.seed + 2);
    c = mix3(mul(c3(.42f, .45f, .50f), m), c3(.18f, .19f, .21f), 0.7f * j * det);
  } else if (f == 4) {
    float k = frac(x * 3.f);
    float m = 0.85f + 0.25f * hf((int)floorf(x * 3.f), (int)floorf(y), w.seed + 3);
    c = mul(c3(.60f, .40f, .22f), m);
    if (k < 0.12f) c = mul(c, 1.f - 0.5f * det);
  } else {
    float n = vnoise(x * 3.f, y * 3.f, w.seed + 4);
    c = mul(c3(.93f, .95f, .98f), 0.92f + 0.1f * (0.5f + (n - 0.5f) * det));
  }
  (void)fx;
  (void)fy;
  return c;
}

DEV inline C3 trace(const World& w, float px, float py, float ang, float su,
                    float sv) {  // su: camera-plane offset, sv: down/forward
  float sn = sinf(ang), cs = cosf(ang);
  float rx = sn + cs * su, ry = -cs + sn * su;
  C3 haze = mul(skyhor(w.sky), 0.9f);
  float lum = w.sky == 2 ? 0.62f : (w.sky == 3 ? 0.85f : 1.f);
  int mx = (int)px, my = (int)py;
  float ddx = fabsf(1.f / (fabsf(rx) < 1e-6f ? 1e-6f : rx)), ddy = fabsf(1.f / (fabsf(ry) < 1e-6f ? 1e-6f : ry));
  int sx = rx < 0 ? -1 : 1, sy = ry < 0 ? -1 : 1;
  float tx = (rx < 0 ? px - mx : mx + 1 - px) * ddx, ty = (ry < 0 ? py - my : my + 1 - py) * ddy;
  int side = 0;
  float d = 0;
  int fx = mx, fy = my;
  for (int i = 0; i < 40; i++) {
    fx = mx;
    fy = my;
    if (tx < ty) {
      d = tx;
      tx += ddx;
      mx += sx;
      side = 0;
    } else {
      d = ty;
      ty += ddy;
      my += sy;
      side = 1;
    }
    if (solid(w, mx, my)) break;
  }
  if (d < 0.02f) d = 0.02f;
  float bt = 1e9f;
  int bi = -1;
  float bnx = 0, bny = 0;
  for (int i = 0; i < w.np; i++) {
    float r = w.ptype[i] == 1 ? 0.27f : 0.18f, hh = w.ptype[i] == 1 ? 0.46f : 1.05f;
    float ox = px - w.px[i], oy = py - w.py[i];
    float A = rx * rx + ry * ry, B = ox * rx + oy * ry, Cc = ox * ox + oy * oy - r * r;
    float D = B * B - A * Cc;
    if (D <= 0) continue;
    float t = (-B - sqrtf(D)) / A;
    if (t <= 0.02f || t >= d || t >= bt) continue;
    if (sv > EYE / t || sv < -(hh - EYE) / t) continue;
    bt = t;
    bi = i;
    bnx = (ox + rx * t) / r;
    bny = (oy + ry * t) / r;
  }
  if (bi >= 0) {
    C3 c = palette(w.pcol[bi]);
    float z = EYE - sv * bt;
    if (w.ptype[bi] == 2 && frac(z / 0.3f) < 0.5f) c = mix3(c, c3(.95f, .95f, .92f), 0.85f);
    if (w.ptype[bi] == 1 && (frac(z / 0.23f) < 0.2f)) c = mul(c, 0.45f);
    if (w.ptype[bi] != 1 && z > 0.97f) c = mul(c, 0.5f);
    float li = 0.62f + 0.38f * (0.5f * (bnx * 0.8f - bny * 0.6f) + 0.5f);
    float f = 1.f - expf(-bt * 0.055f);
    return mix3(mul(c, li * lum), haze, f);
  }
  if (sv > EYE / d) {
    float t = EYE / sv;
    float x = px + rx * t, y = py + ry * t;
    float f = 1.f - expf(-t * 0.055f);
    return mix3(mul(floorcol(w, x, y, t), 0.92f * lum), haze, f);
  }
  if (sv < -(WALLH - EYE) / d) {
    float a = atan2f(rx, -ry);
    if (a < 0) a += 6.2831853f;
    return sky(w.sky, a, sv / sqrtf(rx * rx + ry * ry));
  }
  float hx = px + rx * d, hy = py + ry * d;
  float u = side == 0 ? frac(hy) : frac(hx);
  if ((side == 0 && rx < 0) || (side == 1 && ry > 0)) u = 1.f - u;
  float z = EYE - sv * d;
  int g = region(w, fx + 0.5f, fy + 0.5f);
  float li = side == 0 ? (rx > 0 ? 0.80f : 1.0f) : (ry > 0 ? 0.88f : 0.70f);
  C3 c = wallcol(w, g, mx, my, side * 2 + (side == 0 ? (rx > 0) : (ry > 0)), u, z, d);
  if (z < 0.08f) c = mul(c, 0.75f);
  float f = 1.f - expf(-d * 0.055f);
  return mix3(mul(c, li * lum), haze, f);
}

DEV inline void render_px(const World& w, float px, float py, float h, int W, int H, int ix, int iy, u8* o) {
  float ang = h * (6.2831853f / NHEAD);
  float R = 0, Gc = 0, B = 0;
  const int S = 3;
  for (int a = 0; a < S; a++)
    for (int b = 0; b < S; b++) {
      float u = (2.f * (ix + (a + 0.5f) / S) / W - 1.f) * FOVT,
            v = ((iy + (b + 0.5f) / S) - H * 0.5f) / (W * 0.5f) * FOVT;
      C3 c = trace(w, px, py, ang, u, v);
      R += c.r;
      Gc += c.g;
      B += c.b;
    }
  float k = 255.f / (S * S);
  R *= k;
  Gc *= k;
  B *= k;
  o[0] = (u8)(R < 0 ? 0 : R > 255 ? 255 : R + 0.5f > 255 ? 255 : R + 0.5f);
  o[1] = (u8)(Gc < 0 ? 0 : Gc + 0.5f > 255 ? 255 : Gc + 0.5f);
  o[2] = (u8)(B < 0 ? 0 : B + 0.5f > 255 ? 255 : B + 0.5f);
}
