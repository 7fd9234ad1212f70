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
  setCount(a, s, g, entry);
}

// found is the state of a group while its frame needs room; one warp has it.
struct Room {
  u32 i, pairNext, pairCount, oldNext, oldCount;
  u32 pairsMade, oldsMade, ask;  // ask: 1 sort pairs, 2 sort olds for the eviction that was decided on
  double evicted, moved;
};

// worth is what eviction goes by.
__device__ __forceinline__ float worth(const MergeArgs& a, const MergeStore& s, u32 g, u32 e) {
  return (float)stateOf(a, s, MEMBERS, g)[e] / (float)(a.frame - stateOf(a, s, TIME, g)[e] + 1);
}

// unite merges two entries into the one with the newer position and returns the slot of the other.
__device__ __forceinline__ u32 unite(const MergeArgs& a, const MergeStore& s, u32 g, u32 x, u32 y, Room& r) {
  int* members = stateOf(a, s, MEMBERS, g);
  const int *time = stateOf(a, s, TIME, g), *cell = stateOf(a, s, CELL, g);
  if (time[x] < time[y] || (time[x] == time[y] && members[x] < members[y])) {
    u32 z = x;
    x = y, y = z;
  }
  if (a.asks) r.moved += (double)movement(a, s, g, y, a.dense + x);
  int all = members[x] + members[y];
  float share = (float)((double)members[y] / (double)all);
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) blend(a, s, h, x, a.dense + y, share);
  double* weight = s.weight + (i64)g * s.slots;
  double w = weight[x] + weight[y];
  if (a.countCap > 0.0) w = min(w, a.countCap);
  __syncwarp();
  if (lane() == 0) {
    members[x] = all, weight[x] = w;
    if (stateOf(a, s, NEAR, g)[x] == (int)y) stateOf(a, s, NEAR, g)[x] = -1;
  }
  __syncwarp();
  if (a.mean) {
    rotate(a, s, g, x, time[x], (u32)cell[x]);
    redescribe(a, s, g, x, (u32)cell[x]);
  }
  setCount(a, s, g, x);
  return y;
}

// stale returns the entry of least worth.
__device__ __forceinline__ u32 stale(const MergeArgs& a, const MergeStore& s, u32 g, const u32* keys, const u32* ids, Room& r) {
  const int* time = stateOf(a, s, TIME, g);
  while (r.oldNext < r.oldCount) {
    u32 o = ids[r.oldNext];
    float value = unordered(keys[r.oldNext]);
    r.oldNext++;
    if (worth(a, s, g, o) == value && time[o] < a.frame) return o;
  }
  u64 least = ~0ull;  // all of them have changed
  for (u32 e = lane(); e < s.slots; e += 32) least = min(least, (u64)ordered(worth(a, s, g, e)) << 32 | e);
#pragma unroll
  for (int w = 16; w > 0; w >>= 1) least = min(least, __shfl_xor_sync(FULL, least, w));
  return (u32)least;
}

// closest returns the nearest pair among those remembered, by their cosine now: -2 if there is none.
__device__ __forceinline__ float closest(const MergeArgs& a, const MergeStore& s, u32 g, const u32* keys, const u32* ids, Room& r, u32& x, u32& y) {
  const float* unit = s.unit;
  int tried = 0;
  while (r.pairNext < r.pairCount && tried < 8) {
    u32 p = ids[r.pairNext];
    int q = stateOf(a, s, NEAR, g)[p];
    if (q >= 0 && q != (int)p) {
      tried++;
      float now = dotRows(a, unit, (i64)g * s.slots + p, unit, (i64)g * s.slots + q);
      __syncwarp();
      if (lane() == 0) stateOf(a, s, NEARNESS, g)[p] = __float_as_int(now);
      __syncwarp();
      if (r.pairNext + 1 >= r.pairCount || now >= -unordered(keys[r.pairNext + 1]) - 1e-5f) {
        x = p, y = (u32)q;
        return now;
      }
    }
    r.pairNext++;
  }
  return -2.0f;
}
