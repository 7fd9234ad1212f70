// The rules of accel/tempcache for tokens that join entries, see README.md. A warp walks a vector in pairs, lane by lane; a
// group's heads are walked one after the other. Compiled without fused multiply-add, like the host's form.
struct MergeStore {
  char *keys, *values, *raw;
  float *means, *logCount, *unit, *first;
  char* queries;
  int *places, *lengths, *entries, *state;
  double *weight, *totals;
  u64 local;  // bit g: group g keeps no entries
  u32 slots, pad;
};
struct MergeArgs {
  const MergeStore* stores;
  const double* frequencies;
  const float* turns;
  float *probe, *query;
  int* best;
  int* hits;
  u32* order;
  int* recent;
  double countCap, decay, maxError, maxChange, spread;
  float threshold, floor;
  int frame, retest;
  u32 tokens, columns, rows, at, dense, anchors, ahead, headDim, timePairs, ring;
  u32 heads, groups, orderWords, radius, depth, queryLow, queryHigh;
  u32 half, rawHalf, space, first;
  u32 lossless, mean, onePerFrame, noCount, neighbours, asked, asks;
  // batch: not 0: the layers from first on go on at once, each with probe, best and recent of its own behind each other
  u32 batch, byMembers, rest, pad;
};
static_assert(sizeof(MergeStore) == 128, "MergeStore is mirrored by mergeStore in merge.go");
static_assert(sizeof(MergeArgs) == 256, "MergeArgs is mirrored by mergeArgs in merge.go");

__device__ __forceinline__ bool isLocal(const MergeStore& s, u32 g) { return s.local >> g & 1; }

#define FULL 0xffffffffu
#define PAIRS 4  // of a lane: heads of up to 256

struct Pairs {
  float2 v[PAIRS];
};

// The layer of a thread block, and its work space.
__device__ __forceinline__ u32 layerOf(const MergeArgs& a, u32 block) { return a.batch ? a.first + block : a.first; }
__device__ __forceinline__ i64 spaceOf(const MergeArgs& a, u32 layer) { return a.batch ? (i64)layer * a.groups * a.tokens : 0; }
__device__ __forceinline__ float* probeOf(const MergeArgs& a, u32 layer) { return a.probe + spaceOf(a, layer) * (a.heads / a.groups * a.headDim); }
__device__ __forceinline__ int* bestOf(const MergeArgs& a, u32 layer) { return a.best + spaceOf(a, layer); }
__device__ __forceinline__ int* recentOf(const MergeArgs& a, u32 layer) { return a.recent + spaceOf(a, layer) * a.depth; }

__device__ __forceinline__ u32 lane() { return threadIdx.x % 32; }

__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
  for (int w = 16; w > 0; w >>= 1) x += __shfl_xor_sync(FULL, x, w);
  return x;
}

// folded adds up 32 numbers a lane at a time: lane k gets the sum over all lanes of part(k), in warpSum's order, for a shuffle a number instead of five.
template <u32 W, typename Part>
__device__ __forceinline__ float folded(const Part& part, u32 k) {
  if constexpr (W == 32) {
    return part(k);
  } else {
    float x = folded<2 * W>(part, k), y = folded<2 * W>(part, k + W);
    bool second = lane() & W;
    return (second ? y : x) + __shfl_xor_sync(FULL, second ? x : y, (int)W);
  }
}

// row brings row i of headDim elements; missing lanes are 0.
__device__ __forceinline__ Pairs row(const char* p, i64 i, u32 half, u32 headDim) {
  Pairs r;
#pragma unroll
  for (int k = 0; k < PAIRS; k++) {
    u32 j = lane() + 32 * k;
    r.v[k] = make_float2(0.0f, 0.0f);
    if (j >= headDim / 2) continue;
    if (half) {
      u32 w = ((const u32*)p)[i * (headDim / 2) + j];
      r.v[k] = make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
    } else {
      r.v[k] = ((const float2*)p)[i * (headDim / 2) + j];
    }
  }
  return r;
}

__device__ __forceinline__ void save(char* p, i64 i, u32 half, u32 headDim, const Pairs& r) {
#pragma unroll
  for (int k = 0; k < PAIRS; k++) {
    u32 j = lane() + 32 * k;
    if (j >= headDim / 2) continue;
    if (half) ((u32*)p)[i * (headDim / 2) + j] = pack2(r.v[k].x, r.v[k].y);
    else ((float2*)p)[i * (headDim / 2) + j] = r.v[k];
  }
}

__device__ __forceinline__ Pairs floats(const float* p, i64 i, u32 headDim) { return row((const char*)p, i, 0, headDim); }

__device__ __forceinline__ float dot(const Pairs& a, const Pairs& b) {
  float s = 0.0f;
#pragma unroll
  for (int k = 0; k < PAIRS; k++) s += a.v[k].x * b.v[k].x + a.v[k].y * b.v[k].y;
  return warpSum(s);
}

// dotRows is the product of two rows of a group's width.
__device__ __forceinline__ float dotRows(const MergeArgs& a, const float* x, i64 i, const float* y, i64 j) {
  u32 width = a.heads / a.groups * a.headDim;
  float s = 0.0f;
  for (u32 k = lane(); k < width / 2; k += 32) {
    float2 p = ((const float2*)x)[i * (width / 2) + k], q = ((const float2*)y)[j * (width / 2) + k];
    s += p.x * q.x + p.y * q.y;
  }
  return warpSum(s);
}

__device__ __forceinline__ void mix(Pairs& mean, const Pairs& x, float share) {
#pragma unroll
  for (int k = 0; k < PAIRS; k++) {
    mean.v[k].x += share * (x.v[k].x - mean.v[k].x);
    mean.v[k].y += share * (x.v[k].y - mean.v[k].y);
  }
}

__device__ __forceinline__ void turnPair(float2& x, float c, float s) { x = make_float2(x.x * c - x.y * s, x.x * s + x.y * c); }

// turn rotates by time (way 1 forward, -1 backward, 0 not) and place.
__device__ __forceinline__ void turn(const MergeArgs& a, Pairs& r, int frame, u32 token, float time, float place) {
#pragma unroll
  for (int k = 0; k < PAIRS; k++) {
    u32 j = lane() + 32 * k;
    if (j >= a.headDim / 2) continue;
    if (j < a.timePairs) {
      if (time == 0.0f) continue;
      double s, c;
      sincos((double)frame * a.frequencies[j], &s, &c);
      turnPair(r.v[k], (float)c, time * (float)s);
    } else if (place != 0.0f) {
      float2 t = ((const float2*)a.turns)[(i64)token * (a.headDim / 2 - a.timePairs) + j - a.timePairs];
      turnPair(r.v[k], t.x, place * t.y);
    }
  }
}

__device__ __forceinline__ void unitLength(Pairs& r, u32 heads) {
  float s = dot(r, r) * (float)heads;
  if (!(s > 0.0f)) return;
  float f = (float)(1.0 / sqrt((double)s));
#pragma unroll
  for (int k = 0; k < PAIRS; k++) r.v[k].x *= f, r.v[k].y *= f;
}

// Places in a store.
__device__ __forceinline__ i64 slotOf(const MergeArgs& a, const MergeStore& s, u32 head, u32 slot) { return (i64)head * (a.dense + s.slots) + slot; }
__device__ __forceinline__ int* stateOf(const MergeArgs& a, const MergeStore& s, u32 which, u32 g) {
  return s.state + ((i64)which * a.groups + g) * s.slots;
}
enum { MEMBERS, TIME, CELL, NEAR, JOINED, NEARNESS, SQUARE };
// Hits of a token: the slot found or -1, its cosine, whether it joins, how far that moves logits.
enum { SLOT, COSINE, JOINS, MOVED };
__device__ __forceinline__ int* hitsOf(const MergeArgs& a, u32 layer, u32 which, u32 g) {
  return a.hits + (((i64)layer * 4 + which) * a.groups + g) * a.tokens;
}

// ordinaryOf is how many entries a group has room for but for the rest, which is the one behind them.
__device__ __forceinline__ u32 ordinaryOf(const MergeArgs& a, const MergeStore& s) { return a.rest && s.slots > 1 ? s.slots - 1 : s.slots; }

// sums reports whether there is a rest.
__device__ __forceinline__ bool sums(const MergeArgs& a, const MergeStore& s) { return ordinaryOf(a, s) < s.slots; }

// compared is the key at a slot in the form in which keys are compared, of unit length.
__device__ __forceinline__ Pairs compared(const MergeArgs& a, const MergeStore& s, u32 head, u32 slot, u32 token) {
  Pairs r = a.space == 2 ? row(s.keys, slotOf(a, s, head, slot), a.half, a.headDim) : row(s.raw, slotOf(a, s, head, slot), a.rawHalf, a.headDim);
  if (a.space == 0) turn(a, r, 0, token, 0.0f, 1.0f);
  unitLength(r, a.heads / a.groups);
  return r;
}

// orderOf is the work space of a group: five lists of a frame's length, see Orders, then four of the entries'.
__device__ __forceinline__ u32* orderOf(const MergeArgs& a, u32 layer, u32 g) { return a.order + ((i64)layer * a.groups + g) * a.orderWords; }

// stepOf is the length of a list of the entries', listsOf where they lie.
__device__ __forceinline__ u32 stepOf(const MergeArgs& a) { return (a.orderWords - 5 * a.tokens) / 4; }
__device__ __forceinline__ u32* listsOf(const MergeArgs& a, u32 layer, u32 g) { return orderOf(a, layer, g) + 5 * a.tokens; }

// claimsOf is what accept notes for join, for every entry: the first token that joins it, and how many do.
__device__ __forceinline__ u32* claimsOf(const MergeArgs& a, u32 layer, u32 g, u32 which) {
  return listsOf(a, layer, g) + (1 + which) * stepOf(a);
}

// same reports whether the stored keys of an entry and of a slot are equal in all heads of the group.
__device__ __forceinline__ bool same(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 slot) {
  u32 n = a.heads / a.groups;
  bool equal = true;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    Pairs x = row(s.keys, slotOf(a, s, h, a.dense + entry), a.half, a.headDim), y = row(s.keys, slotOf(a, s, h, slot), a.half, a.headDim);
#pragma unroll
    for (int k = 0; k < PAIRS; k++) equal = equal && x.v[k].x == y.v[k].x && x.v[k].y == y.v[k].y;
  }
  return __all_sync(FULL, equal);
}

// movement is by how much logits move if the key at slot takes the place of the entry's.
__device__ __forceinline__ float movement(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 slot) {
  const int samples = 16;
  u32 n = a.heads / a.groups;
  if (a.queryHigh <= a.queryLow) return 0.0f;
  double worst = 0.0;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    Pairs x = row(s.keys, slotOf(a, s, h, a.dense + entry), a.half, a.headDim), y = row(s.keys, slotOf(a, s, h, slot), a.half, a.headDim);
#pragma unroll
    for (int k = 0; k < PAIRS; k++) x.v[k].x -= y.v[k].x, x.v[k].y -= y.v[k].y;
    double sum = 0.0;
    for (int i = 0; i < samples; i++) {
      u32 at = a.queryLow + (2 * i + 1) * (a.queryHigh - a.queryLow) / (2 * samples);
      double v = (double)dot(x, row(s.queries, (i64)h * a.ring + at, a.half, a.headDim));
      sum += v * v;
    }
    worst = max(worst, sum);
  }
  return (float)sqrt(worst / samples / (double)a.headDim);
}

// apart is the root mean square difference of the values of an entry and a slot, the largest of the group's heads.
__device__ __forceinline__ double apart(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 slot) {
  u32 n = a.heads / a.groups;
  float worst = 0.0f;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    Pairs x = row(s.values, slotOf(a, s, h, a.dense + entry), a.half, a.headDim), y = row(s.values, slotOf(a, s, h, slot), a.half, a.headDim);
#pragma unroll
    for (int k = 0; k < PAIRS; k++) x.v[k].x -= y.v[k].x, x.v[k].y -= y.v[k].y;
    worst = max(worst, dot(x, x));
  }
  return sqrt((double)worst / (double)a.headDim);
}

__device__ __forceinline__ double grow(const MergeArgs& a, double weight, double more) {
  if (a.decay > 0.0) weight *= a.decay;
  weight += more;
  return a.countCap > 0.0 ? min(weight, a.countCap) : weight;
}

// blend moves the means of an entry of a head towards the value and the key at a slot, which may be another entry's.
__device__ __forceinline__ void blend(const MergeArgs& a, const MergeStore& s, u32 h, u32 entry, u32 slot, float share) {
  i64 to = slotOf(a, s, h, a.dense + entry);
  Pairs x = row(s.values, slotOf(a, s, h, slot), a.half, a.headDim);
  if (s.means != nullptr) {
    if (slot >= a.dense) x = floats(s.means, (i64)h * s.slots + slot - a.dense, a.headDim);
    Pairs m = floats(s.means, (i64)h * s.slots + entry, a.headDim);
    mix(m, x, share);
    save((char*)s.means, (i64)h * s.slots + entry, 0, a.headDim, m);
    save(s.values, to, a.half, a.headDim, m);
  } else {
    Pairs m = row(s.values, to, 0, a.headDim);
    mix(m, x, share);
    save(s.values, to, 0, a.headDim, m);
  }
  if (a.mean) {
    Pairs k = row(s.raw, to, 0, a.headDim);
    mix(k, row(s.raw, slotOf(a, s, h, slot), a.rawHalf, a.headDim), share);
    save(s.raw, to, 0, a.headDim, k);
  }
}

// squareOf is the square length of the unrotated key at a slot, of all heads of a group together.
__device__ __forceinline__ float squareOf(const MergeArgs& a, const MergeStore& s, u32 g, u32 slot) {
  u32 n = a.heads / a.groups;
  float sum = 0.0f;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    Pairs k = row(s.raw, slotOf(a, s, h, slot), a.rawHalf, a.headDim);
    sum += dot(k, k);
  }
  return sum;
}

// spreadBy takes another square length into an entry's mean.
__device__ __forceinline__ void spreadBy(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, float square, float share) {
  float* own = (float*)stateOf(a, s, SQUARE, g) + entry;
  float old = *own;
  __syncwarp();
  if (lane() == 0) *own = old + share * (square - old);
  __syncwarp();
}

// add counts a token as a member and takes it into the means.
__device__ __forceinline__ void add(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 slot) {
  i64 at = (i64)g * s.slots + entry;
  int members = stateOf(a, s, MEMBERS, g)[entry] + 1;
  double weight = grow(a, s.weight[at], 1.0);
  __syncwarp();
  if (lane() == 0) {
    stateOf(a, s, MEMBERS, g)[entry] = members;
    stateOf(a, s, JOINED, g)[entry]++;
    s.weight[at] = weight;
  }
  __syncwarp();
  double share = a.decay > 0.0 ? min(1.0, 1.0 / weight) : 1.0 / (double)members;
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) blend(a, s, h, entry, slot, (float)share);
  if (a.spread > 0.0) spreadBy(a, s, g, entry, squareOf(a, s, g, slot), (float)share);
}

__device__ __forceinline__ void setPlace(const MergeArgs& a, const MergeStore& s, u32 head, u32 entry, int frame, u32 token) {
  int* p = s.places + ((i64)head * (a.anchors + s.slots) + a.anchors + entry) * 3;
  if (lane() == 0) p[0] = frame, p[1] = (int)(token / a.columns), p[2] = (int)(token % a.columns);
}

__device__ __forceinline__ void setCount(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry) {
  u32 n = a.heads / a.groups;
  float count = a.noCount ? 0.0f : (float)log(s.weight[(i64)g * s.slots + entry]);
  if (a.spread > 0.0 && !a.noCount) {
    float lack = ((float*)stateOf(a, s, SQUARE, g))[entry] - squareOf(a, s, g, a.dense + entry);
    count += (float)(a.spread / (double)(2 * n * a.headDim)) * max(0.0f, lack);
  }
  if (lane() == 0)
    for (u32 h = g * n; h < (g + 1) * n; h++) s.logCount[slotOf(a, s, h, a.dense + entry)] = count;
}

// rotate writes the key of an entry at a position from its mean before rotation, redescribe what is compared of it.
__device__ __forceinline__ void rotate(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, int frame, u32 token) {
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    i64 at = slotOf(a, s, h, a.dense + entry);
    Pairs k = row(s.raw, at, a.rawHalf, a.headDim);
    turn(a, k, frame, token, 1.0f, 1.0f);
    save(s.keys, at, a.half, a.headDim, k);
  }
}

__device__ __forceinline__ void redescribe(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 token) {
  u32 n = a.heads / a.groups;
  for (u32 h = 0; h < n; h++) save((char*)s.unit, ((i64)g * s.slots + entry) * n + h, 0, a.headDim, compared(a, s, g * n + h, a.dense + entry, token));
}

__device__ __forceinline__ void moveRow(char* p, i64 to, i64 from, u32 half, u32 headDim) { save(p, to, half, headDim, row(p, from, half, headDim)); }

// renew gives an entry the position of its newest member, and with it a key.
__device__ __forceinline__ void renew(const MergeArgs& a, const MergeStore& s, u32 g, u32 entry, u32 token) {
  u32 n = a.heads / a.groups;
  for (u32 h = g * n; h < (g + 1) * n; h++) {
    i64 to = slotOf(a, s, h, a.dense + entry), from = slotOf(a, s, h, a.at + token);
    if (!a.mean) {
      moveRow(s.keys, to, from, a.half, a.headDim);
      moveRow(s.raw, to, from, a.rawHalf, a.headDim);
    }
    setPlace(a, s, h, entry, a.frame, token);
  }
  if (a.mean) rotate(a, s, g, entry, a.frame, token);
  redescribe(a, s, g, entry, token);
  if (lane() == 0) stateOf(a, s, TIME, g)[entry] = a.frame, stateOf(a, s, CELL, g)[entry] = (int)token;
  setCount(a, s, g, entry);
}
