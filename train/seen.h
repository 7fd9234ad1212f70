// What of a frame earlier frames of the same clip have shown: for every pixel the point that its middle ray meets is looked for from the
// earlier poses. Exact but for the pixel's own extent; a point counts as seen from wherever nothing hides it.
#pragma once
#include "raycast.h"

enum { UNSEEN, FAR_AWAY, SEEN };  // never in view; only from more than twice as far; from at most twice as far, or sky

// Where a ray ends: depth along the camera's axis, the point, or for the sky its compass direction and slope.
struct Hit {
  bool sky;
  u8 what;  // 0 sky, 1 to 9 the walls of a region, 10 to 18 its floor, 19 a landmark
  float depth, x, y, z;
};

// Depths along the camera's axis of the wall and, up to it, of the nearest landmark that the ray with offset su and slope sv meets (1e9: none).
DEV inline void depths(const World& w, float px, float py, float rx, float ry, float sv, float& wall, float& thing) {
  int mx = (int)px, my = (int)py;
  float ddx = fabsf(1.f / (fabsf(rx) < 1e-6f ? 1e-6f : rx)), ddy = fabsf(1.f / (fabsf(ry) < 1e-6f ? 1e-6f : ry));
  int sx = rx < 0 ? -1 : 1, sy = ry < 0 ? -1 : 1;
  float tx = (rx < 0 ? px - mx : mx + 1 - px) * ddx, ty = (ry < 0 ? py - my : my + 1 - py) * ddy;
  wall = 0;
  for (int i = 0; i < 40; i++) {
    if (tx < ty) {
      wall = tx;
      tx += ddx;
      mx += sx;
    } else {
      wall = ty;
      ty += ddy;
      my += sy;
    }
    if (solid(w, mx, my)) break;
  }
  if (wall < 0.02f) wall = 0.02f;
  thing = 1e9f;
  for (int i = 0; i < w.np; i++) {
    float r = w.ptype[i] == 1 ? 0.27f : 0.18f, hh = w.ptype[i] == 1 ? 0.46f : 1.05f;
    float ox = px - w.px[i], oy = py - w.py[i];
    float a = rx * rx + ry * ry, b = ox * rx + oy * ry, c = ox * ox + oy * oy - r * r, d = b * b - a * c;
    if (d <= 0) continue;
    float t = (-b - sqrtf(d)) / a;
    if (t <= 0.02f || t >= wall || t >= thing || sv > EYE / t || sv < -(hh - EYE) / t) continue;
    thing = t;
  }
}

DEV inline Hit meet(const World& w, const float* pose, float su, float sv) {
  float an = pose[2] * (6.2831853f / NHEAD), sn = sinf(an), cs = cosf(an), rx = sn + cs * su, ry = -cs + sn * su, wall, thing;
  depths(w, pose[0], pose[1], rx, ry, sv, wall, thing);
  Hit h;
  h.sky = false;
  h.what = 0;
  h.depth = thing < 1e8f ? thing : sv > EYE / wall ? EYE / sv : wall;
  if (thing > 1e8f && sv < -(WALLH - EYE) / wall) {
    h.sky = true;
    h.x = rx;
    h.y = ry;
    h.z = sv;
    return h;
  }
  h.x = pose[0] + rx * h.depth;
  h.y = pose[1] + ry * h.depth;
  h.z = EYE - sv * h.depth;
  h.what = thing < 1e8f ? 19 : (sv > EYE / wall ? 10 : 1) + region(w, h.x - 0.02f * rx, h.y - 0.02f * ry);
  return h;
}

// The depth at which the point lies in the picture of another pose, 0 if it is not in that picture.
DEV inline float depth_from(const World& w, const float* pose, const Hit& h) {
  float an = pose[2] * (6.2831853f / NHEAD), sn = sinf(an), cs = cosf(an);
  float dx = h.sky ? h.x : h.x - pose[0], dy = h.sky ? h.y : h.y - pose[1];
  float ahead = dx * sn - dy * cs;
  if (ahead < 0.02f) return 0;
  float su = (dx * cs + dy * sn) / ahead, sv = (h.sky ? h.z : EYE - h.z) / ahead;
  if (fabsf(su) > FOVT || fabsf(sv) > FOVT) return 0;
  float wall, thing;
  depths(w, pose[0], pose[1], sn + cs * su, -cs + sn * su, sv, wall, thing);
  if (h.sky) return thing > 1e8f && sv < -(WALLH - EYE) / wall ? 1 : 0;
  float hidden = fminf(wall, thing);
  return ahead <= hidden * 1.01f + 0.02f ? ahead : 0;
}

// Pixel (ix, iy) of frame t: whether the frames before it, or the first `given` of them, have shown it, + 4 times what it is.
DEV inline u8 seen_px(const World& w, const float* pose, int t, int given, int W, int H, int ix, int iy) {
  Hit h = meet(w, pose + 3 * t, (2.f * (ix + 0.5f) / W - 1.f) * FOVT, ((iy + 0.5f) - H * 0.5f) / (W * 0.5f) * FOVT);
  u8 best = UNSEEN;
  for (int j = (t < given || !given ? t : given) - 1; j >= 0; j--) {
    float d = depth_from(w, pose + 3 * j, h);
    if (d > 0) best = h.sky || d <= 2 * h.depth ? SEEN : FAR_AWAY;
    if (best == SEEN) break;
  }
  return best + 4 * h.what;
}
