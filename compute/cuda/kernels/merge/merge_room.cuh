// What a group does when its store is full; see budget.go of accel/tempcache for the rules.
// ordered maps floats to numbers that sort alike.
__device__ __forceinline__ u32 ordered(float x) {
  u32 u = __float_as_uint(x);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ float unordered(u32 u) { return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u); }

#define FOUND 256  // threads of merge_found

// sortBlock sorts n pairs by key, stable, 4 bits at a time; keys and ids go to and fro between two places and end where they were.
__device__ void sortBlock(u32* keys, u32* ids, u32* keys2, u32* ids2, u32 n, u32* count) {
  u32 t = threadIdx.x, each = (n + FOUND - 1) / FOUND, lo = min(n, t * each), hi = min(n, lo + each);
  for (u32 shift = 0; shift < 32; shift += 4) {
    for (u32 d = 0; d < 16; d++) count[d * FOUND + t] = 0;
    __syncthreads();
    for (u32 i = lo; i < hi; i++) count[(keys[i] >> shift & 15) * FOUND + t]++;
    __syncthreads();
    // Sums of 16 numbers a thread, then of threads.
    u32 own[16], sum = 0;
#pragma unroll
    for (u32 d = 0; d < 16; d++) own[d] = sum, sum += count[t * 16 + d];
    u32 up = sum;
#pragma unroll
    for (int w = 1; w < 32; w <<= 1) {
      u32 x = __shfl_up_sync(FULL, up, w);
      if (lane() >= (u32)w) up += x;
    }
    __shared__ u32 warps[FOUND / 32];
    if (lane() == 31) warps[t / 32] = up;
    __syncthreads();
    u32 before = up - sum;
    for (u32 w = 0; w < t / 32; w++) before += warps[w];
#pragma unroll
    for (u32 d = 0; d < 16; d++) count[t * 16 + d] = before + own[d];
    __syncthreads();
    for (u32 i = lo; i < hi; i++) {
      u32 k = keys[i], to = count[(k >> shift & 15) * FOUND + t]++;
      keys2[to] = k, ids2[to] = ids[i];
    }
    __syncthreads();
    u32* x = keys;
    keys = keys2, keys2 = x;
    x = ids, ids = ids2, ids2 = x;
  }
}

// put makes a token an entry.
__device__ __forceinline__ void putEntry(const MergeArgs& a, const MergeStore& s, u32 layer, u32 g, u32 entry, u32 token) {
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    i64 to = slotOf(a, s, h, a.dense + entry), from = slotOf(a, s, h, a.at + token);
    moveRow(s.keys, to, from, a.half, a.headDim);
    moveRow(s.raw, to, from, a.rawHalf, a.headDim);
    Pairs v = row(s.values, from, a.half, a.headDim);
    save(s.values, to, a.half, a.headDim, v);
    if (s.means != nullptr) save((char*)s.means, (i64)h * s.slots + entry, 0, a.headDim, v);
    setPlace(a, s, h, entry, a.frame, token);
    Pairs u = compared(a, s, h, a.at + token, token);
    save((char*)s.unit, ((i64)g * s.slots + entry) * n + h - g * n, 0, a.headDim, u);
    if (s.first != nullptr) save((char*)s.first, ((i64)g * s.slots + entry) * n + h - g * n, 0, a.headDim, u);
  }
  int hit = hitsOf(a, layer, SLOT, g)[token];
  __syncwarp();
  if (lane() == 0) {
    s.weight[(i64)g * s.slots + entry] = 1.0;
    stateOf(a, s, MEMBERS, g)[entry] = 1, stateOf(a, s, JOINED, g)[entry] = 0;
    stateOf(a, s, TIME, g)[entry] = a.frame, stateOf(a, s, CELL, g)[entry] = (int)token;
    stateOf(a, s, NEAR, g)[entry] = hit == (int)entry ? -1 : hit;
    stateOf(a, s, NEARNESS, g)[entry] = hitsOf(a, layer, COSINE, g)[token];
  }
  __syncwarp();
  if (a.spread > 0.0) {  // set, not moved: what was there before would leave its rounding
    float square = squareOf(a, s, g, a.at + token);
    if (lane() == 0) ((float*)stateOf(a, s, SQUARE, g))[entry] = square;
    __syncwarp();
  }
  setCount(a, s, g, entry);
}

// Room is the state of a group while its frame needs room. Decisions are made one after the other by one warp, which needs numbers
// alone; what they do to keys and values is then done by all warps at once. A batch of decisions touches no entry twice.
struct Room {
  u32 i, pairNext, pairCount, pairsMade, oldNext, oldCount;  // pairsMade: so many have their cosines in Orders.now
  u32 oldsMade, ask;  // ask: the olds are to be sorted
  u32 tried;          // by a search of pairs that was broken off
  u32 evicts;         // it is decided that the token at i takes the place of the entry of least worth
  double evicted, moved;
};

#define OPS 64
#define NONE 0xffffffffu
#define JOIN 0xfffffffeu

// Op is a decision: the token joins the entry (other is JOIN), or takes its place, after the entry was united into other unless that is NONE.
struct Op {
  u32 token, entry, other;
};
struct Todo {
  Op list[OPS];
  double moved[OPS];
  u32 count;
};

// Orders are the lists of a group's work space, each as long as a frame: pairs and their nearness, entries by worth, the tokens that
// need room, what they were found to be near to, and how near.
struct Orders {
  u32 *keys, *ids, *keys2, *ids2;
  float* now;  // of each pair, as long as neither entry is touched
  int* need;
  const int* slots;
  float* own;
};

// worth is what eviction goes by: of an entry, and of so many members at a time.
__device__ __forceinline__ float worth(const MergeArgs& a, int members, int time) {
  float age = (float)(a.frame - time + 1);
  return a.byMembers ? (float)members + 1.0f / age : (float)members / age;
}
__device__ __forceinline__ float worth(const MergeArgs& a, const MergeStore& s, u32 g, u32 e) {
  return worth(a, stateOf(a, s, MEMBERS, g)[e], stateOf(a, s, TIME, g)[e]);
}

// ownOf is how near a token is to the entry that was found for it, as it is now.
__device__ __forceinline__ float ownOf(const MergeArgs& a, const MergeStore& s, u32 g, u32 token, u32 entry) {
  float own = 0.0f;
  u32 n = a.heads / a.groups;
  for (u32 h = 0; h < n; h++)
    own += dot(compared(a, s, g * n + h, a.at + token, token), floats(s.unit, ((i64)g * s.slots + entry) * n + h, a.headDim));
  return own;
}

// unite merges entry y into x.
__device__ __forceinline__ double unite(const MergeArgs& a, const MergeStore& s, u32 g, u32 x, u32 y) {
  int* members = stateOf(a, s, MEMBERS, g);
  const int *time = stateOf(a, s, TIME, g), *cell = stateOf(a, s, CELL, g);
  double moved = a.asks ? (double)movement(a, s, g, y, a.dense + x) : 0.0;
  int all = members[x] + members[y];
  float share = (float)((double)members[y] / (double)all);
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) blend(a, s, h, x, a.dense + y, share);
  if (a.spread > 0.0) spreadBy(a, s, g, x, ((float*)stateOf(a, s, SQUARE, g))[y], share);
  double* weight = s.weight + (i64)g * s.slots;
  double w = weight[x] + weight[y];
  if (a.countCap > 0.0) w = min(w, a.countCap);
  __syncwarp();
  if (lane() == 0) members[x] = all, weight[x] = w;
  __syncwarp();
  if (a.mean) {
    rotate(a, s, g, x, time[x], (u32)cell[x]);
    redescribe(a, s, g, x, (u32)cell[x]);
  }
  setCount(a, s, g, x);
  return moved;
}

// perform does what was decided and returns by how much logits moved.
__device__ __forceinline__ double perform(const MergeArgs& a, const MergeStore& s, u32 layer, u32 g, Op o) {
  double moved = 0.0;
  if (o.other == JOIN) {
    if (a.asks) moved = (double)movement(a, s, g, o.entry, a.at + o.token);
    add(a, s, g, o.entry, a.at + o.token);
    renew(a, s, g, o.entry, o.token);
    return moved;
  }
  if (o.other != NONE) moved = unite(a, s, g, o.other, o.entry);
  __syncwarp();
  putEntry(a, s, layer, g, o.entry, o.token);
  return moved;
}

// Decider is what the deciding warp knows during a batch.
struct Decider {
  const MergeArgs& a;
  const MergeStore& s;
  u32 g;
  const Orders& o;
  Todo& todo;
  u32* dirty;  // a bit for each entry that was touched since o.now and o.own were computed
  Room& r;
  u32 n;                     // decisions of the batch
  bool pairKnown;            // the nearest pair is x, y at nearness, or there is none
  u32 x, y;
  float nearness;
  u32 base, id;              // a lane has an entry of the 32 of least worth from base on
  int members;
  bool good;                 // it still has the worth that it was ranked by

  __device__ __forceinline__ bool touched(u32 e) const {
    bool hit = false;
    for (u32 k = lane(); k < n; k += 32) hit = hit || todo.list[k].entry == e || todo.list[k].other == e;
    return __any_sync(FULL, hit);
  }
  __device__ __forceinline__ bool isDirty(u32 e) const { return dirty[e / 32] >> e % 32 & 1; }
  __device__ __forceinline__ void touch(u32 e) {
    if (lane() == 0) dirty[e / 32] |= 1u << e % 32;
    if (e == x || e == y) pairKnown = false;
    if (id == e) good = false;
  }

  __device__ __forceinline__ void decide(u32 token, u32 entry, u32 other) {
    __syncwarp();  // all have read what is written here
    if (lane() == 0) todo.list[n] = Op{token, entry, other};
    touch(entry);
    if (other < JOIN) touch(other);
    n++;
    r.i++;
    __syncwarp();
  }

  // placed notes what an entry that a token takes the place of is near to.
  __device__ __forceinline__ void placed(u32 entry, int hit) {
    __syncwarp();
    if (lane() == 0) stateOf(a, s, NEAR, g)[entry] = hit == (int)entry ? -1 : hit;
    __syncwarp();
  }

  // closest finds the nearest pair among those remembered, by their cosine now; it reports false when the batch must be done first.
  __device__ __forceinline__ bool closest() {
    const int* near = stateOf(a, s, NEAR, g);
    nearness = -2.0f, x = y = NONE;
    while (r.pairNext < r.pairCount && r.tried < 8) {
      u32 p = o.ids[r.pairNext];
      float next = r.pairNext + 1 < r.pairCount ? -unordered(o.keys[r.pairNext + 1]) - 1e-5f : __int_as_float(0xff800000), now = o.now[r.pairNext];
      int q = near[p];
      if (q >= 0 && q != (int)p) {
        if (r.pairNext >= r.pairsMade || isDirty(p) || isDirty((u32)q)) {
          if (touched(p) || touched((u32)q)) return false;
          now = dotRows(a, s.unit, (i64)g * s.slots + p, s.unit, (i64)g * s.slots + q);
        }
        r.tried++;
        if (lane() == 0) stateOf(a, s, NEARNESS, g)[p] = __float_as_int(now);
        if (now >= next) {
          x = p, y = (u32)q, nearness = now, pairKnown = true;
          break;
        }
      }
      r.pairNext++;
    }
    r.tried = 0;
    pairKnown = pairKnown || r.pairNext >= r.pairCount;
    return true;
  }

  // unites decides that the nearest pair becomes one, the one with the newer position, and the token takes the place of the other.
  __device__ __forceinline__ void unites(u32 token, int hit) {
    const int *time = stateOf(a, s, TIME, g), *all = stateOf(a, s, MEMBERS, g);
    u32 to = x, from = y;
    if (time[to] < time[from] || (time[to] == time[from] && all[to] < all[from])) to = y, from = x;
    __syncwarp();
    if (lane() == 0 && stateOf(a, s, NEAR, g)[to] == (int)from) stateOf(a, s, NEAR, g)[to] = -1;
    placed(from, hit);
    decide(token, from, to);
  }

  // stale finds the entry of least worth; it reports false when the batch must be done first.
  __device__ __forceinline__ bool stale(u32& entry, int& count) {
    const int *time = stateOf(a, s, TIME, g), *all = stateOf(a, s, MEMBERS, g);
    while (r.oldNext < r.oldCount) {
      if (base == NONE || r.oldNext >= base + 32) {
        base = r.oldNext, id = NONE, good = false;
        if (base + lane() < r.oldCount) {
          id = o.ids2[base + lane()], members = all[id];
          good = worth(a, s, g, id) == unordered(o.keys2[base + lane()]) && time[id] < a.frame;
          for (u32 k = 0; k < n; k++) good = good && todo.list[k].entry != id && todo.list[k].other != id;
        }
      }
      u32 which = __ballot_sync(FULL, good && base + lane() >= r.oldNext);
      if (which == 0) {
        r.oldNext = min(base + 32, r.oldCount);
        continue;
      }
      int from = __ffs((int)which) - 1;
      entry = __shfl_sync(FULL, id, from), count = __shfl_sync(FULL, members, from);
      r.oldNext = base + (u32)from + 1;
      return true;
    }
    if (n > 0) return false;
    u64 least = ~0ull;  // all of them have changed
    for (u32 e = lane(); e < ordinaryOf(a, s); e += 32) least = min(least, (u64)ordered(worth(a, s, g, e)) << 32 | e);
#pragma unroll
    for (int w = 16; w > 0; w >>= 1) least = min(least, __shfl_xor_sync(FULL, least, w));
    entry = (u32)least, count = all[entry];
    return true;
  }

  // run decides on tokens until the batch is full or must be done first.
  __device__ __forceinline__ void run(u32 needed) {
    u32 from = NONE, token = 0;
    int hit = -1;
    float near = 0.0f;
    while (r.i < needed && n < OPS) {
      if (from == NONE || r.i >= from + 32) {  // a lane has a token
        from = r.i;
        if (from + lane() < needed) token = (u32)o.need[from + lane()], hit = o.slots[token], near = o.own[from + lane()];
      }
      int at = (int)(r.i - from), found = __shfl_sync(FULL, hit, at);
      u32 mine = __shfl_sync(FULL, token, at);
      float own = __shfl_sync(FULL, near, at);
      if (!r.evicts) {
        if (found < 0) own = -2.0f;
        else if (isDirty((u32)found)) {
          if (touched((u32)found)) return;
          own = ownOf(a, s, g, mine, (u32)found);
        }
        if (!pairKnown && !closest()) return;
        if (own >= nearness && own >= a.floor) {
          decide(mine, (u32)found, JOIN);
          continue;
        }
        if (nearness >= a.floor) {
          unites(mine, found);
          continue;
        }
        r.evicts = 1;
      }
      if (!r.oldsMade) {
        r.ask = 1;
        return;
      }
      u32 entry;
      int count;
      if (!stale(entry, count)) return;
      r.evicts = 0;
      r.evicted += (double)count;
      placed(entry, found);
      decide(mine, entry, NONE);
    }
  }
};

// rankOf is what pairs or evictions go by, the least first; it reports false for an entry that is not among them.
__device__ __forceinline__ bool rankOf(const MergeArgs& a, const MergeStore& s, u32 g, bool pairs, u32 e, u32& key) {
  u32 at = min(e, s.slots - 1);  // without a branch, so that several can be read at a time
  int x = stateOf(a, s, pairs ? NEAR : MEMBERS, g)[at], y = stateOf(a, s, pairs ? NEARNESS : TIME, g)[at];
  key = ordered(pairs ? -__int_as_float(y) : worth(a, x, y));
  return e < ordinaryOf(a, s) && (pairs ? x >= 0 : y < a.frame || !sums(a, s));
}

// least finds the last of the want least keys, 8 bits of it at a time, of n things; keyOf(i, key) tells the key of one, or false. It returns how many
// there are at most; take is how many of those that equal the key belong to them. All threads of the block, as below.
template <typename KeyOf>
__device__ __forceinline__ u32 least(u32 n, u32 want, KeyOf keyOf, u32* bins, u32& last, u32& take) {
  __shared__ u32 chosen, rest;
  u32 t = threadIdx.x, few = 0;
  last = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bins[t] = 0;
    __syncthreads();
    for (u32 e = t; e < n; e += 8 * FOUND) {
      u32 key[8];
      bool some[8];
#pragma unroll
      for (u32 m = 0; m < 8; m++) some[m] = e + m * FOUND < n && keyOf(e + m * FOUND, key[m]);
#pragma unroll
      for (u32 m = 0; m < 8; m++)
        if (some[m] && (shift == 24 || key[m] >> (shift + 8) == last)) atomicAdd(&bins[key[m] >> shift & 255], 1u);
    }
    __syncthreads();
    u32 own = bins[t];
    for (u32 w = 1; w < FOUND; w <<= 1) {
      u32 x = t >= w ? bins[t - w] : 0;
      __syncthreads();
      bins[t] += x;
      __syncthreads();
    }
    if (shift == 24) few = want = min(want, bins[FOUND - 1]);
    if (few == 0) return 0;
    if (bins[t] - own < want && bins[t] >= want) chosen = t, rest = want - (bins[t] - own);
    __syncthreads();
    last = last << 8 | chosen, want = rest;
    __syncthreads();
  }
  take = want;
  return few;
}

// select lists up to want things with the least keys, in their order, which decides between equal keys.
template <typename KeyOf>
__device__ __forceinline__ u32 select(u32 n, u32 want, KeyOf keyOf, u32* keys, u32* ids, u32* count) {
  u32 t = threadIdx.x, warp = t / 32, last, take, below = 0, equal = 0;
  u32 few = least(n, want, keyOf, count, last, take);
  if (few == 0) return 0;
  for (u32 e0 = 0; e0 < n; e0 += FOUND) {
    u32 key = 0;
    bool some = e0 + t < n && keyOf(e0 + t, key), less = some && key < last, same = some && key == last;
    u32 lessMask = __ballot_sync(FULL, less), sameMask = __ballot_sync(FULL, same), before = (1u << lane()) - 1;
    if (lane() == 0) count[warp] = (u32)__popc(lessMask) | (u32)__popc(sameMask) << 16;
    __syncthreads();
    u32 ahead = 0, all = 0;
    for (u32 w = 0; w < FOUND / 32; w++) {
      if (w < warp) ahead += count[w];
      all += count[w];
    }
    u32 lessAt = below + (ahead & 0xffff) + (u32)__popc(lessMask & before), sameAt = equal + (ahead >> 16) + (u32)__popc(sameMask & before);
    if (less || (same && sameAt < take)) {
      u32 at = lessAt + min(sameAt, take);
      keys[at] = key, ids[at] = e0 + t;
    }
    below += all & 0xffff, equal += all >> 16;
    __syncthreads();
  }
  return few;
}

// rank sorts entries by what pairs or evictions go by, and keeps as many of the first as a frame has tokens.
__device__ u32 rank(const MergeArgs& a, const MergeStore& s, u32 g, bool pairs, u32* work, u32* toKeys, u32* toIds, u32* count) {
  u32 step = stepOf(a), few = select(s.slots, a.tokens, [&](u32 e, u32& key) { return rankOf(a, s, g, pairs, e, key); }, work, work + step, count);
  sortBlock(work, work + step, work + 2 * step, work + 3 * step, few, count);
  for (u32 k = threadIdx.x; k < few; k += FOUND) toKeys[k] = work[k], toIds[k] = work[step + k];
  __syncthreads();
  return few;
}

// makeRoom finds places for the tokens from room.i on of a full group; all threads of the block.
__device__ void makeRoom(const MergeArgs& a, const MergeStore& s, u32 layer, u32 g, u32 needed, const Orders& o, u32* work, u32* count, u32* dirty, Room& room) {
  __shared__ Todo todo;
  u32 t = threadIdx.x, warp = t / 32, pairs = rank(a, s, g, true, work, o.keys, o.ids, count);
  for (u32 e = t; e < (s.slots + 31) / 32; e += FOUND) dirty[e] = 0;
  for (u32 k = room.i + warp; k < needed; k += FOUND / 32) {
    u32 token = (u32)o.need[k];
    int hit = o.slots[token];
    float own = hit < 0 ? -2.0f : ownOf(a, s, g, token, (u32)hit);
    if (lane() == 0) o.own[k] = own;
  }
  u32 made = min(pairs, 2 * (needed - room.i) + 32);  // few are looked at beyond; the decider computes those
  for (u32 k = warp; k < made; k += FOUND / 32) {
    i64 p = o.ids[k], q = stateOf(a, s, NEAR, g)[p];
    float now = dotRows(a, s.unit, (i64)g * s.slots + p, s.unit, (i64)g * s.slots + q);
    if (lane() == 0) o.now[k] = now;
  }
  if (t == 0) room.pairCount = pairs, room.pairsMade = made;
  __syncthreads();
  for (;;) {
    if (warp == 0) {
      Room r = room;
      __syncwarp();
      Decider d = {a, s, g, o, todo, dirty, r, 0, false, NONE, NONE, -2.0f, NONE, NONE, 0, false};
      d.run(needed);
      if (lane() == 0) room = r, todo.count = d.n;
    }
    __syncthreads();
    for (u32 k = warp; k < todo.count; k += FOUND / 32) {
      double moved = perform(a, s, layer, g, todo.list[k]);
      if (lane() == 0) todo.moved[k] = moved;
    }
    __syncthreads();
    bool done = room.i >= needed, sorts = room.ask;
    if (t == 0)
      for (u32 k = 0; k < todo.count; k++) room.moved += todo.moved[k];
    __syncthreads();
    if (done) break;
    if (!sorts) continue;
    u32 olds = rank(a, s, g, false, work, o.keys2, o.ids2, count);
    if (t == 0) room.oldCount = olds, room.oldsMade = 1, room.ask = 0;
    __syncthreads();
  }
}
