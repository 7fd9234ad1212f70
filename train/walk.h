// Walks: a player in a world, as actions and poses. Kinds 0 to 3 are those that the first weights were trained on and
// package world's older golden data hold; 4 and 5 came later. The order of the draws is part of what a seed means.
#pragma once
#include "maze.h"

enum { MIXED, LOOK, CIRCLES, UNDO, RETURN, STROLL };
#define HALF_TURN (NHEAD / 2)

// A player follows a route to a cell (go) or plays out a plan (que), and then thinks of something new to do.
struct Walker {
  Rng r;
  float x, y;
  int h;
  u8 dist[G * G];  // steps from each cell to the place to go to
  u8 que[160];
  int qn, qi;
  bool go;
  int exact;  // the plan undoes earlier actions: nothing else may be done in between
  int stuck, left;
  float lazy;
};

DEV inline void put(Walker& p, int n, int a) {
  for (int i = 0; i < n; i++) p.que[p.qn++] = (u8)a;
}

DEV inline int opposite(int a) { return a == 1 ? 2 : a == 2 ? 1 : a == 3 ? 4 : a == 4 ? 3 : a == 7 ? 8 : a == 8 ? 7 : 0; }

// Set out for cell (tx, ty) unless it is here, out of reach, or limit steps away or more.
DEV inline void head_for(Walker& p, const World& w, int tx, int ty, int limit) {
  bfs(w, tx, ty, p.dist);
  int d = p.dist[(int)p.y * G + (int)p.x];
  if (d > 0 && d < limit) {
    p.go = true;
    p.left = 8 + d * 9;
    p.stuck = 0;
  }
}

DEV inline void somewhere(Walker& p, const World& w) {
  int tx, ty, tries = 0;
  do {
    tx = 1 + ri(p.r, G - 2);
    ty = 1 + ri(p.r, G - 2);
    tries++;
  } while ((solid(w, tx, ty) || pcell(w, tx, ty) || abs(tx - (int)p.x) + abs(ty - (int)p.y) > 7) && tries < 60);
  if (tries < 60) head_for(p, w, tx, ty, 14);
}

DEV inline void look_around(Walker& p) {
  int n = 8 + ri(p.r, 28), d = 3 + ri(p.r, 2);
  put(p, n, d);
}

DEV inline void glance(Walker& p) {
  int n = 4 + ri(p.r, 16), d = 3 + ri(p.r, 2), s = ri(p.r, 4);
  put(p, n, d);
  put(p, s, 0);
  put(p, n, 7 - d);
}

// n steps straight on, then back up, or turn round and return, or do that and turn round again.
DEV inline void there_and_back(Walker& p, int n) {
  put(p, n, 1);
  int m = ri(p.r, 3);
  if (m == 0) {
    put(p, n, 2);
    return;
  }
  int d = 3 + ri(p.r, 2);
  put(p, HALF_TURN, d);
  put(p, n, 1);
  if (m == 2) put(p, HALF_TURN, d);
}

DEV inline void think(Walker& p, const World& w, const float* pose, int t, bool wander) {
  float m = rf(p.r);
  p.qn = p.qi = 0;
  if (wander) m *= 0.48f;
  if (m < 0.48f || (m < 0.58f && t < 6)) {
    somewhere(p, w);
  } else if (m < 0.63f) {  // back to a place seen before
    int k = ri(p.r, t);
    head_for(p, w, (int)pose[k * 3], (int)pose[k * 3 + 1], 24);
  } else if (m < 0.71f) {
    look_around(p);
  } else if (m < 0.80f) {
    glance(p);
  } else if (m < 0.88f) {
    there_and_back(p, 3 + ri(p.r, 12));
  } else if (m < 0.93f) {
    put(p, 2 + ri(p.r, 8), 0);
  } else if (m < 0.96f) {
    put(p, 2 + ri(p.r, 8), 2);
  } else {
    int n = 4 + ri(p.r, 10);
    for (int i = 0; i < n; i++) put(p, 1, ri(p.r, 7));
  }
}

// Undo the last actions, walking backwards, or after turning round.
DEV inline void retrace(Walker& p, const u8* act, int t) {
  int k = 6 + ri(p.r, 36);
  if (k > t - 1) k = t - 1;
  bool round = rf(p.r) < 0.4f;
  int d = 3 + ri(p.r, 2);
  if (round) put(p, HALF_TURN, d);
  for (int i = 0; i < k && p.qn < 140; i++) {
    int b = act[t - 1 - i], walk = b == 5 || b == 6 ? 1 : b, turn = b == 3 || b == 5 ? 4 : b == 4 || b == 6 ? 3 : 0;
    if (round) {
      if (b == 1 || b == 2 || b >= 7) put(p, 1, b);
      if (b == 5 || b == 6) put(p, 1, 1);
    } else if (moves(walk)) {
      put(p, 1, opposite(walk));
    } else if (!walk) {
      put(p, 1, 0);
    }
    if (turn) put(p, 1, turn);
  }
  if (round && rf(p.r) < 0.6f) put(p, HALF_TURN, d);
  p.exact = p.qn;
}

// What a player does who knows how to strafe, often retraces its steps and keeps off the walls.
DEV inline void think_stroll(Walker& p, const World& w, const float* pose, const u8* act, int t, bool wander) {
  float m = rf(p.r);
  p.qn = p.qi = 0;
  if (wander) m *= 0.30f;
  if (m < 0.30f || (m < 0.5f && t < 6)) {
    somewhere(p, w);
  } else if (m < 0.38f) {
    int k = ri(p.r, t);
    head_for(p, w, (int)pose[k * 3], (int)pose[k * 3 + 1], 24);
  } else if (m < 0.42f) {
    look_around(p);
  } else if (m < 0.46f) {
    glance(p);
  } else if (m < 0.52f) {  // as far as the way is free
    int n = 3 + ri(p.r, 12), k = 0, h = p.h;
    float x = p.x, y = p.y;
    while (k < n && !hits(w, x, y, h, 1)) {
      step(w, x, y, h, 1);
      k++;
    }
    there_and_back(p, k);
  } else if (m < 0.545f) {
    put(p, 2 + ri(p.r, 8), 0);
  } else if (m < 0.645f) {
    int n = 5 + ri(p.r, 16);
    put(p, n, 2);
    if (rf(p.r) < 0.4f) put(p, n, 1);
  } else if (m < 0.81f) {
    int n = 4 + ri(p.r, 14), d = 7 + ri(p.r, 2);
    put(p, n, d);
    if (rf(p.r) < 0.5f) put(p, n, opposite(d));
  } else if (m < 0.84f) {
    int n = 4 + ri(p.r, 10);
    for (int i = 0; i < n; i++) put(p, 1, ri(p.r, 9));
  } else {
    retrace(p, act, t);
  }
}

// The next action along the route, towards the middle of the next cell; at its end the player stops and may turn.
DEV inline int follow(Walker& p, const World& w) {
  int ix = (int)p.x, iy = (int)p.y, best = p.dist[iy * G + ix];
  if (best == 0 || best == 255 || --p.left <= 0 || p.stuck > 5) {
    p.go = false;
    return rf(p.r) < 0.7f ? 3 + ri(p.r, 2) : 0;
  }
  int bx = ix, by = iy;
  const int dx[4] = {1, -1, 0, 0}, dy[4] = {0, 0, 1, -1};
  for (int k = 0; k < 4; k++) {
    int nx = ix + dx[k], ny = iy + dy[k];
    if (!solid(w, nx, ny) && p.dist[ny * G + nx] < best) {
      best = p.dist[ny * G + nx];
      bx = nx;
      by = ny;
    }
  }
  float want = atan2f(bx + 0.5f - p.x, -(by + 0.5f - p.y)) * (NHEAD / 6.2831853f);
  float d = want - p.h;
  while (d > NHEAD / 2) d -= NHEAD;
  while (d < -NHEAD / 2) d += NHEAD;
  float ad = fabsf(d);
  if (ad > 2.2f) return d < 0 ? 3 : 4;
  if (ad <= 0.7f) return 1;
  if (rf(p.r) < 0.3f * p.lazy) return d < 0 ? 3 : 4;
  return d < 0 ? 5 : 6;
}

DEV inline int queued(Walker& p) { return p.qi < p.qn ? p.que[p.qi++] : 0; }

DEV inline int choose(Walker& p, const World& w, const float* pose, int t, bool wander) {
  if (!p.go && p.qi >= p.qn) think(p, w, pose, t, wander);
  return p.go ? follow(p, w) : queued(p);
}

// As choose, for a stroll. A player who only wanders always walks to some place, with simple actions, and never
// touches a wall.
DEV inline int choose_stroll(Walker& p, const World& w, const float* pose, const u8* act, int t, bool wander) {
  if (!p.go && p.qi >= p.qn) think_stroll(p, w, pose, act, t, wander);
  int a;
  if (p.go) {
    a = follow(p, w);
    if (p.go && !wander && rf(p.r) < 0.10f) {
      int b = 7 + ri(p.r, 2);
      if (!hits(w, p.x, p.y, p.h, b)) a = b;
    }
  } else {
    a = queued(p);
  }
  if (p.qi >= p.qn) p.exact = 0;
  if (wander && a > 4) a = 1;
  if (p.exact || !hits(w, p.x, p.y, p.h, a) || !(wander || rf(p.r) < 0.9f)) return a;
  if (p.go && (a == 5 || a == 6) && !hits(w, p.x, p.y, turned(p.h, a), 1)) return a == 5 ? 3 : 4;
  p.go = false;  // turn away instead
  p.qn = p.qi = 0;
  int n = 3 + ri(p.r, 5), d = 3 + ri(p.r, 2);
  put(p, n, d);
  return queued(p);
}

// The action that leads to frame t. LOOK turns span frames one way, then back; UNDO walks for span frames, then undoes
// every action in reverse order; RETURN walks for span frames, turns round, walks back the same way, turns round.
DEV inline int next_action(Walker& p, const World& w, u32 seed, int kind, int span, const float* pose, const u8* act,
                           int t) {
  int right = seed & 1 ? 3 : 4;
  if (kind == LOOK) return (t - 1) % (2 * span) < span ? right : 7 - right;
  if (kind == CIRCLES) return right;
  if (kind == UNDO) {
    if (t > span) return opposite(act[2 * span + 1 - t > 0 ? 2 * span + 1 - t : 0]);
    int a = choose(p, w, pose, t, true);
    return a > 4 ? 1 : a;
  }
  if (kind == RETURN) {
    int q = t - span - 1;
    if (q < 0) return choose_stroll(p, w, pose, act, t, true);
    if (q < HALF_TURN || (q >= HALF_TURN + span && q < 2 * HALF_TURN + span)) return 4;
    if (q >= 2 * HALF_TURN + span) return 0;
    int b = act[span - (q - HALF_TURN)];
    return b == 3 || b == 4 ? 7 - b : b;
  }
  return kind == STROLL ? choose_stroll(p, w, pose, act, t, false) : choose(p, w, pose, t, false);
}

// poses: x, y, heading index (float) of each frame; act[t] led from frame t-1 to frame t.
DEV inline void gen_episode(u32 seed, int T, int kind, int ctx, int span, World& w, short* tok, float* pose, u8* act) {
  Walker p;
  p.r.s = hash32(seed * 2654435761u + 12345u);
  rnd(p.r);
  gen_world(w, p.r);
  int cx, cy;
  do {
    cx = 1 + ri(p.r, G - 2);
    cy = 1 + ri(p.r, G - 2);
  } while (w.cell[cy * G + cx] || pcell(w, cx, cy));
  p.x = cx + 0.5f;
  p.y = cy + 0.5f;
  p.h = ri(p.r, NHEAD);
  w.start_reg = (u8)region(w, p.x, p.y);
  gen_prompt(w, p.r, tok);
  p.qn = p.qi = p.exact = p.stuck = p.left = 0;
  p.go = false;
  p.lazy = rf(p.r);
  for (int t = 0; t < T; t++) {
    int a = 0;
    if (t > 0) {
      a = next_action(p, w, seed, kind, span, pose, act, t);
      float ox = p.x, oy = p.y;
      step(w, p.x, p.y, p.h, a);
      if ((a == 1 || a > 4) && fabsf(ox - p.x) + fabsf(oy - p.y) < 0.02f)
        p.stuck++;
      else if (a)
        p.stuck = p.stuck > 0 ? p.stuck - 1 : 0;
    }
    pose[t * 3] = p.x;
    pose[t * 3 + 1] = p.y;
    pose[t * 3 + 2] = (float)p.h;
    act[t] = (u8)a;
  }
}
