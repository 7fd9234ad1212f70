// What tiles of queries see, see README.md.
struct PlanArgs {
  const void *query, *keys;
  const float* logCount;
  const int *lengths, *kinds, *fresh, *dense;
  const float *turns, *mass;
  float *means, *logs;
  int* tokens;
  float *groups, *norms, *scores;
  int *lists, *tileKeys, *tileEnds;
  double fraction;
  i64 queryHead, queryRow, keyHead, keyRow, logHead;
  u32 heads, queries, keyCount, headDim, tile, tiles, queryTile, queryTiles, group, groupsEach, turned, least, entries;
  u32 queryHalf, keyHalf;
  float scale, temper;
  u32 room;  // tiles that means, logs and tokens have room for
  // How means are known: quantised, or by codes of them and of the groups. Null where there are none.
  const float* known;
  const u64 *codes, *groupCodes;
  const float *codeLengths, *groupLengths;
  u32 bits, words;
  // What is left out counts by its means.
  const void* values;
  void *restValues, *restKeys;
  float* rest;
  i64 valueHead, valueRow;
  const u64* groupWeak;  // with tables
  u32 tables, tableBits;
};
static_assert(sizeof(PlanArgs) == 376, "PlanArgs is mirrored by planArgs in plan.go");

#define FULL 0xffffffffu
#define INF __int_as_float(0x7f800000)

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }

__device__ __forceinline__ void store(void* p, i64 at, u32 half, float v) {
  if (half) put((bf16*)p + at, v);
  else ((float*)p)[at] = v;
}

// plan_means writes mean, logarithm of tokens and number of tokens of fresh tiles. A block of 128 threads has a tile of a head.
extern "C" __global__ void __launch_bounds__(128) plan_means(const __grid_constant__ PlanArgs a) {
  __shared__ float row[128];
  u32 t = (u32)a.fresh[blockIdx.x], h = blockIdx.y, d = threadIdx.x;
  u32 lo = t * a.tile, hi = min(a.keyCount, lo + a.tile);
  if (a.lengths != nullptr) hi = min(hi, (u32)max(a.lengths[h], 0));
  float sum = 0.0f, total = 0.0f, value = 0.0f;
  u32 n = 0;
  for (u32 k = lo; k < hi; k++) {
    float w = 1.0f;
    if (a.logCount != nullptr) w = expf(a.logCount[h * a.logHead + k]);
    if (w == 0.0f) continue;
    total += w, n++;
    if (d >= a.headDim) continue;
    sum += w * element(a.keys, h * a.keyHead + (i64)k * a.keyRow + d, a.keyHalf);
    if (a.values != nullptr) value += w * element(a.values, h * a.valueHead + (i64)k * a.valueRow + d, a.keyHalf);
  }
  sum = total > 0.0f ? sum / total : 0.0f;
  row[d] = sum;
  __syncthreads();
  if (a.kinds[t] == 3 && d / 2 < a.turned) {  // back in time
    float2 r = ((const float2*)a.turns)[d / 2];
    sum = d % 2 == 0 ? row[d] * r.x + row[d + 1] * r.y : row[d] * r.x - row[d - 1] * r.y;
  }
  i64 at = (i64)h * a.room + t;
  if (d < a.headDim) a.means[at * a.headDim + d] = sum;
  if (d < a.headDim && a.values != nullptr) store(a.restValues, at * a.headDim + d, a.keyHalf, total > 0.0f ? value / total : 0.0f);
  if (d == 0) a.logs[at] = total > 0.0f ? logf(total) : -INF, a.tokens[at] = (int)n;
}

#define TEAM 64  // threads that walk a set of queries, two neighbouring elements each

// pairAt and elementAt read a query that was brought into shared memory: bfloat16 as they are, in words, or float.
template <bool HALF>
__device__ __forceinline__ float2 pairAt(const u32* q, u32 width, u32 row, u32 pair) {
  if (HALF) {
    u32 w = q[row * width + pair];
    return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
  }
  const float* x = (const float*)q + row * width + 2 * pair;
  return make_float2(x[0], x[1]);
}

template <bool HALF>
__device__ __forceinline__ float elementAt(const u32* q, u32 width, u32 row, u32 x) {
  float2 v = pairAt<HALF>(q, width, row, x / 2);
  return x % 2 ? v.y : v.x;
}

// bring copies the queries of a tile to shared memory. Rows are an odd number of words apart.
template <bool HALF>
__device__ __forceinline__ void bring(const PlanArgs& a, u32* q, u32 width, i64 from, u32 n) {
  const bf16* half = (const bf16*)a.query + from;
  if (HALF && ((u64)half & 15) == 0 && a.queryRow % 8 == 0) {
    u32 each = a.headDim / 8;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < n * each; i += 256) {
      u32 y = i / each, x = i % each;
      uint4 v = *(const uint4*)(half + (i64)y * a.queryRow + x * 8);
      u32* to = q + y * width + x * 4;
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    }
    return;
  }
  for (u32 i = threadIdx.x; i < n * a.headDim; i += 256) {
    u32 y = i / a.headDim, x = i % a.headDim;
    if (HALF) ((bf16*)(q + y * width))[x] = half[(i64)y * a.queryRow + x];
    else ((float*)q)[y * width + x] = ((const float*)a.query)[from + (i64)y * a.queryRow + x];
  }
}

// better decides between axes: the widest, of equal ones the first.
__device__ __forceinline__ void better(float& v, u32& at, float w, u32 other) {
  if (w > v || (w == v && other < at)) v = w, at = other;
}

// divide orders the queries of a tile so that groups of neighbours are near each other: sets of them are halved at the median of the
// coordinate that varies most, all sets of a size at once, until none is larger than a group. order has the queries.
template <bool HALF>
__device__ __forceinline__ void divide(const PlanArgs& a, const u32* q, u32 width, u32 n, u32* order) {
  __shared__ u32 from[128], many[128], number[128], sets[64], axis[64][2], count;  // from and many of the set of each place
  __shared__ float widest[64][2];
  __shared__ u64 keys[128];
  u32 t = threadIdx.x;
  if (t < 128) order[t] = t, from[t] = 0, many[t] = n;
  for (;;) {
    if (t == 0) count = 0;
    __syncthreads();
    bool place = t < n && many[t] > a.group;
    if (place && from[t] == t) number[t] = atomicAdd(&count, 1u), sets[number[t]] = t;
    __syncthreads();
    u32 all = count;
    if (all == 0) return;
    for (u32 k = t / TEAM; k < all; k += 256 / TEAM) {
      u32 first = sets[k], size = many[first], pair = t % TEAM, at = 2 * pair;
      float v = -INF;
      if (at < a.headDim) {
        float s0 = 0.0f, s1 = 0.0f, r0 = 0.0f, r1 = 0.0f;  // sums in order, as the host has them
#pragma unroll 8
        for (u32 i = 0; i < size; i++) {
          float2 x = pairAt<HALF>(q, width, order[first + i], pair);
          s0 = __fadd_rn(s0, x.x), r0 = __fadd_rn(r0, __fmul_rn(x.x, x.x));
          s1 = __fadd_rn(s1, x.y), r1 = __fadd_rn(r1, __fmul_rn(x.y, x.y));
        }
        v = __fsub_rn(r0, __fmul_rn(s0, s0) / (float)size);
        better(v, at, __fsub_rn(r1, __fmul_rn(s1, s1) / (float)size), at + 1);
      }
#pragma unroll
      for (int w = 1; w < 32; w <<= 1) better(v, at, __shfl_xor_sync(FULL, v, w), __shfl_xor_sync(FULL, at, w));
      if (t % 32 == 0) widest[k][t / 32 % 2] = v, axis[k][t / 32 % 2] = at;
    }
    __syncthreads();
    if (place) {
      u32 k = number[from[t]];
      float v = elementAt<HALF>(q, width, order[t], widest[k][1] > widest[k][0] ? axis[k][1] : axis[k][0]) + 0.0f;
      u32 u = __float_as_uint(v);
      keys[t] = (u64)(u & 0x80000000u ? ~u : u | 0x80000000u) << 32 | order[t];
    }
    __syncthreads();
    u32 p = t / 2, rank = 0, first = from[p], size = many[p];  // two threads have a place
    bool moves = p < n && size > a.group;
    u64 own = moves ? keys[p] : 0;
    if (moves)
#pragma unroll 8
      for (u32 i = t % 2; i < size; i += 2) rank += keys[first + i] < own;
    rank += __shfl_xor_sync(FULL, rank, 1);
    __syncthreads();
    if (moves && t % 2 == 0) order[first + rank] = (u32)own;
    if (place) {
      u32 lo = from[t], half = (many[t] + a.group - 1) / a.group / 2 * a.group;
      if (t - lo < half) many[t] = half;
      else from[t] = lo + half, many[t] -= half;
    }
  }
}

template <bool HALF>
__device__ __forceinline__ void groupsOf(const PlanArgs& a) {
  extern __shared__ float4 shared[];
  __shared__ u32 order[128];
  __shared__ float mass[128];
  u32* q = (u32*)shared;
  u32 t = threadIdx.x, tile = blockIdx.x, h = blockIdx.y, width = HALF ? a.headDim / 2 + 1 : a.headDim + 1;
  u32 lo = tile * a.queryTile, n = min(a.queries, lo + a.queryTile) - lo;
  if (a.mass != nullptr && t < n) mass[t] = a.mass[(i64)h * a.queries + lo + t];
  bring<HALF>(a, q, width, h * a.queryHead + (i64)lo * a.queryRow, n);
  divide<HALF>(a, q, width, n, order);
  i64 row = ((i64)h * a.queryTiles + tile) * a.groupsEach, all = (i64)a.heads * a.queryTiles * a.groupsEach;
  u32 pair = t % TEAM;
  for (u32 g = t / TEAM; g < a.groupsEach && 2 * pair < a.headDim; g += 256 / TEAM) {
    u32 first = g * a.group, end = min(n, first + a.group);
    float2 m = make_float2(0.0f, 0.0f);
#pragma unroll 8
    for (u32 i = first; i < end; i++) {
      float2 x = pairAt<HALF>(q, width, order[i], pair);
      m.x += x.x, m.y += x.y;
    }
    if (first < end) m.x /= (float)(end - first), m.y /= (float)(end - first);
    float2 old = m;
    if (pair < a.turned) {
      float2 r = ((const float2*)a.turns)[pair];
      old = make_float2(m.x * r.x + m.y * r.y, m.y * r.x - m.x * r.y);
    }
    ((float2*)(a.groups + (row + g) * a.headDim))[pair] = m;
    ((float2*)(a.groups + (all + row + g) * a.headDim))[pair] = old;
  }
  if (a.mass == nullptr || t >= a.groupsEach) return;
  float s = 0.0f;
  u32 first = t * a.group, end = min(n, first + a.group);
  for (u32 i = first; i < end; i++) s += mass[order[i]] / (float)(end - first);
  a.norms[row + t] = s;
}

// plan_groups divides the queries of a tile into groups of near ones and writes their means, as they are and turned back in time. A
// block has a tile of a head.
extern "C" __global__ void __launch_bounds__(256) plan_groups(const __grid_constant__ PlanArgs a) {
  if (a.queryHalf) groupsOf<true>(a);
  else groupsOf<false>(a);
}

// split divides two neighbours into high and low halves.
__device__ __forceinline__ void split(float x, float y, u32& hi, u32& lo) {
  hi = pack2(x, y);
  lo = pack2(x - __uint_as_float(hi << 16), y - __uint_as_float(hi & 0xffff0000u));
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// power is e^x to about 3 %, as the host has it.
__device__ __forceinline__ float power(float x) { return x < -80.0f ? 0.0f : __int_as_float((int)(x * 12102203.0f) + 1064866805); }

#define STEPS 8  // of 16 elements, the most

#define MOST_BITS 512

// fillCosines writes what a number of different bits says of an angle.
__device__ __forceinline__ void fillCosines(const PlanArgs& a, float* cosines) {
  for (u32 i = threadIdx.x; i <= a.bits && a.codes != nullptr; i += blockDim.x) cosines[i] = angle(i, a.bits);
}

// hashed estimates by codes: 16 groups from row on against 8 tiles.
__device__ __forceinline__ void hashed(const PlanArgs& a, u32 h, u32 kind, i64 row, u32 many, const float* cosines, u32 t0, float (&s)[4]) {
  u32 lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
#pragma unroll
  for (u32 j = 0; j < 4; j++) {
    u32 y = r + j / 2 * 8, t = t0 + c * 2 + j % 2;
    s[j] = -INF;
    if (y >= many || t >= a.tiles || (u32)a.kinds[t] != kind) continue;
    const u64 *g = a.groupCodes + (row + y) * a.words, *k = a.codes + ((i64)h * a.room + t) * a.words;
    if (a.tables > 0 && !sharesBucket(g, k, a.groupWeak + (row + y) * a.words, a.tables, a.tableBits)) continue;
    u32 differ = 0;
    for (u32 w = 0; w < a.words; w++) differ += (u32)__popcll(g[w] ^ k[w]);
    s[j] = a.groupLengths[row + y] * a.codeLengths[(i64)h * a.room + t] * cosines[differ] * a.scale + a.logs[(i64)h * a.room + t];
  }
}

// estimates computes 16 rows of groups against 8 tiles from t0 on: logits of the tiles of a kind, -Inf for others.
__device__ __forceinline__ void estimates(const PlanArgs& a, u32 h, u32 kind, const u32 (&qh)[STEPS][4], const u32 (&ql)[STEPS][4], u32 t0, float (&s)[4]) {
  u32 lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
  float high[4] = {}, low[4] = {};  // sums of their own, which do not wait for each other
  const float* mean = (a.known != nullptr && kind < 4 ? a.known : a.means) + ((i64)h * a.room + min(t0 + r, a.tiles - 1)) * a.headDim;
  s[0] = s[1] = s[2] = s[3] = 0.0f;
#pragma unroll
  for (u32 k = 0; k < STEPS; k++) {
    if (k * 16 >= a.headDim) break;
    float4 x = *(const float4*)(mean + k * 16 + c * 4);
    u32 h0, h1, l0, l1;
    split(x.x, x.y, h0, l0);
    split(x.z, x.w, h1, l1);
    multiply(low, ql[k], h0, h1);
    multiply(s, qh[k], l0, l1);
    multiply(high, qh[k], h0, h1);
  }
#pragma unroll
  for (u32 j = 0; j < 4; j++) {
    s[j] = high[j] + (low[j] + s[j]);
    u32 t = t0 + c * 2 + j % 2;
    s[j] = t < a.tiles && (u32)a.kinds[t] == kind ? s[j] * a.scale + a.logs[(i64)h * a.room + t] : -INF;
  }
}

// fragments loads 16 rows of groups from row on, of which many exist. A lane multiplies four neighbours in each step, here as in estimates.
__device__ __forceinline__ void fragments(const PlanArgs& a, const float* groups, u32 many, u32 (&qh)[STEPS][4], u32 (&ql)[STEPS][4]) {
  u32 lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
#pragma unroll
  for (u32 k = 0; k < STEPS; k++)
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      qh[k][j] = ql[k][j] = qh[k][j + 2] = ql[k][j + 2] = 0;
      u32 y = r + j * 8;
      if (y >= many || k * 16 >= a.headDim) continue;
      float4 v = *(const float4*)(groups + (i64)y * a.headDim + k * 16 + c * 4);
      split(v.x, v.y, qh[k][j], ql[k][j]);
      split(v.z, v.w, qh[k][j + 2], ql[k][j + 2]);
    }
}

#define WARPS 8

// realRow reports whether a row of a head's groups has queries: the last tile may have fewer groups.
__device__ __forceinline__ bool realRow(const PlanArgs& a, u32 row) {
  u32 tile = row / a.groupsEach;
  return tile < a.queryTiles && row % a.groupsEach * a.group < min(a.queries - tile * a.queryTile, a.queryTile);
}

// anyOf reports whether there is a tile of a kind among the 8 from t0 on.
__device__ __forceinline__ bool anyOf(const PlanArgs& a, u32 t0, u32 kind) {
  u32 t = t0 + threadIdx.x % 8;
  return __any_sync(FULL, t < a.tiles && (u32)a.kinds[min(t, a.tiles - 1)] == kind);
}

// plan_norms writes the mass of what can be chosen from, where no dense pass has told that of all keys. A block has 16 groups of a head, a
// warp every eighth run of eight tiles of keys.
extern "C" __global__ void __launch_bounds__(256) plan_norms(const __grid_constant__ PlanArgs a) {
  __shared__ float parts[WARPS][16], cosines[MOST_BITS + 1];
  fillCosines(a, cosines);
  __syncthreads();
  u32 g0 = blockIdx.x * 16, h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
  u32 rows = a.queryTiles * a.groupsEach, many = rows - g0;
  i64 row = (i64)h * rows + g0, all = (i64)a.heads * rows;
  u32 qh[STEPS][4], ql[STEPS][4];
  float norm[2] = {-INF, -INF};
  for (u32 pass = 0; pass < 2; pass++) {  // the largest, then the sum relative to it
    float v[2] = {pass == 0 ? -INF : 0.0f, pass == 0 ? -INF : 0.0f};
    for (u32 kind = 2; kind < 5; kind++) {
      i64 from = (kind == 3 ? all : 0) + row;
      bool codes = a.codes != nullptr && kind < 4;
      if (!codes) fragments(a, a.groups + from * a.headDim, many, qh, ql);
      for (u32 t0 = warp * 8; t0 < a.tiles; t0 += WARPS * 8) {
        if (!anyOf(a, t0, kind)) continue;
        float s[4];
        if (codes) hashed(a, h, kind, from, many, cosines, t0, s);
        else estimates(a, h, kind, qh, ql, t0, s);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
          if (pass == 0) v[j / 2] = fmaxf(v[j / 2], s[j]);
          else if (s[j] != -INF) v[j / 2] += power(s[j] - norm[j / 2]);
        }
      }
    }
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
#pragma unroll
      for (int w = 1; w < 4; w <<= 1) {
        float o = __shfl_xor_sync(FULL, v[j], w);
        v[j] = pass == 0 ? fmaxf(v[j], o) : v[j] + o;
      }
      if (c == 0) parts[warp][r + 8 * j] = v[j];
    }
    __syncthreads();
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      float x = parts[0][r + 8 * j];
      for (u32 w = 1; w < WARPS; w++) x = pass == 0 ? fmaxf(x, parts[w][r + 8 * j]) : x + parts[w][r + 8 * j];
      norm[j] = pass == 0 ? x : norm[j] + logf(x);
    }
    __syncthreads();
  }
  if (warp == 0 && c == 0)
    for (u32 j = 0; j < 2; j++)
      if (r + 8 * j < many) a.norms[row + r + 8 * j] = norm[j] == -INF ? INF : norm[j];
}

#define COLUMNS 64  // tiles of keys of a block of plan_scores
#define ROWS 64     // groups that it walks at a time
#define APART 144   // words from one tile's mean to the next in shared memory

// halve brings the means of COLUMNS tiles to shared memory, divided for multiply: of four neighbours the high halves, then the low ones. All
// warps need them; and their loads are all on the way at once.
__device__ __forceinline__ void halve(const PlanArgs& a, u32* halves, const u32* kinds, u32 h, u32 t0) {
  u32 parts = a.headDim / 4;
#pragma unroll 8
  for (u32 i = threadIdx.x; i < COLUMNS * parts; i += 128) {
    u32 y = i / parts, x = i - y * parts;
    const float* from = a.known != nullptr && kinds[y] < 4 ? a.known : a.means;
    float4 v = *(const float4*)(from + ((i64)h * a.room + min(t0 + y, a.tiles - 1)) * a.headDim + x * 4);
    uint4 w;
    split(v.x, v.y, w.x, w.z);
    split(v.z, v.w, w.y, w.w);
    *(uint4*)(halves + y * APART + x * 4) = w;
  }
}

// products multiplies 16 rows of groups by the means of 8 tiles in shared memory.
__device__ __forceinline__ void products(const PlanArgs& a, const u32 (&qh)[STEPS][4], const u32 (&ql)[STEPS][4], const u32* halves, float (&s)[4]) {
  u32 lane = threadIdx.x % 32;
  const uint4* from = (const uint4*)(halves + lane / 4 * APART + lane % 4 * 4);
  float high[4] = {}, low[4] = {}, other[4] = {};  // sums of their own, which do not wait for each other
#pragma unroll
  for (u32 k = 0; k < STEPS; k++) {
    if (k * 16 >= a.headDim) break;
    uint4 w = from[k * 4];
    multiply(low, ql[k], w.x, w.y);
    multiply(other, qh[k], w.z, w.w);
    multiply(high, qh[k], w.x, w.y);
  }
#pragma unroll
  for (u32 j = 0; j < 4; j++) s[j] = high[j] + (low[j] + other[j]);
}

// plan_scores adds up the groups' shares of tiles of keys. A block has as many tiles of queries of a head as have ROWS groups, at least
// one, and COLUMNS tiles of keys; a warp has 16 groups at a time.
extern "C" __global__ void __launch_bounds__(128) plan_scores(const __grid_constant__ PlanArgs a) {
  extern __shared__ uint4 means[];
  __shared__ float shares[ROWS][COLUMNS + 1], cosines[MOST_BITS + 1], logs[COLUMNS];
  __shared__ u32 kindAt[COLUMNS];
  u32* halves = (u32*)means;
  fillCosines(a, cosines);
  u32 t = threadIdx.x, lane = t % 32, warp = t / 32, r = lane / 4, c = lane % 4, h = blockIdx.z, t00 = blockIdx.y * COLUMNS;
  u32 kind = t00 + t % COLUMNS < a.tiles ? (u32)a.kinds[t00 + t % COLUMNS] : 0;
  if (t < COLUMNS) kindAt[t] = kind, logs[t] = t00 + t < a.tiles ? a.logs[(i64)h * a.room + t00 + t] : 0.0f;
  u32 kinds = 0;  // a bit for each that a tile of the block has
  for (u32 k = 2; k < 5; k++) kinds |= __syncthreads_or(kind == k) != 0 ? 1u << k : 0u;
  if (kinds == 0) return;
  if (a.codes == nullptr || (kinds & 1u << 4)) halve(a, halves, kindAt, h, t00);
  u32 each = max(1u, ROWS / a.groupsEach), tile0 = blockIdx.x * each, last = min(a.queryTiles, tile0 + each);
  u32 rows = a.queryTiles * a.groupsEach, begin = tile0 * a.groupsEach, end = last * a.groupsEach;
  float sum = 0.0f;
  for (u32 row0 = begin; row0 < end; row0 += ROWS) {
    u32 mine = row0 + warp * 16;
    float norm[2];
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      u32 row = mine + r + 8 * j;
      norm[j] = row < end && realRow(a, row) ? a.norms[(i64)h * rows + row] : INF;
    }
    __syncthreads();  // the means are there; and the shares have been read
#pragma unroll 1
    for (u32 k = 2; k < 5; k++) {
      if (!(kinds & 1u << k) || mine >= end) continue;
      u32 qh[STEPS][4], ql[STEPS][4];
      i64 from = (k == 3 ? (i64)a.heads * rows : 0) + (i64)h * rows + mine;
      bool codes = a.codes != nullptr && k < 4;
      if (!codes) fragments(a, a.groups + from * a.headDim, end - mine, qh, ql);
#pragma unroll 2
      for (u32 n = 0; n < COLUMNS; n += 8) {
        if (!__any_sync(FULL, kindAt[n + lane % 8] == k)) continue;
        float s[4];
        if (codes) hashed(a, h, k, from, end - mine, cosines, t00 + n, s);
        else products(a, qh, ql, halves + n * APART, s);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
          u32 x = n + c * 2 + j % 2;
          if (kindAt[x] != k) continue;
          if (!codes) s[j] = s[j] * a.scale + logs[x];
          shares[warp * 16 + r + j / 2 * 8][x] = s[j] == -INF || norm[j / 2] == INF ? 0.0f : power(a.temper * fminf(0.0f, s[j] - norm[j / 2]));
        }
      }
    }
    __syncthreads();
    // A thread adds up a column of every second tile of queries, group by group.
    for (u32 tile = tile0 + t / COLUMNS; tile < last; tile += 128 / COLUMNS) {
      u32 first = tile * a.groupsEach, next = first + a.groupsEach;
      for (u32 row = max(first, row0); row < min(next, row0 + ROWS); row++) sum += shares[row - row0][t % COLUMNS];
      if (next > row0 + ROWS) continue;  // there are more of its groups
      if (kind >= 2) a.scores[((i64)h * a.queryTiles + tile) * a.tiles + t00 + t % COLUMNS] = sum;
      sum = 0.0f;
    }
  }
}

#define PICK 256

// sumBlock returns the sum of the threads' numbers before this one, and all of them.
__device__ __forceinline__ u32 sumBlock(u32 x, u32& all) {
  __shared__ u32 parts[PICK / 32];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, up = x;
#pragma unroll
  for (int w = 1; w < 32; w <<= 1) {
    u32 y = __shfl_up_sync(FULL, up, w);
    if (lane >= (u32)w) up += y;
  }
  __syncthreads();
  if (lane == 31) parts[warp] = up;
  __syncthreads();
  u32 before = 0;
  all = 0;
  for (u32 w = 0; w < PICK / 32; w++) {
    if (w < warp) before += parts[w];
    all += parts[w];
  }
  return before + up - x;
}

#define HELD 2048  // tiles whose scores fit into shared memory

// plan_pick lists kept tiles and the best of the others: a search for the score at which the budget of tokens is spent, 8 bits of
// it at a time (scores above 0 sort like their bits). Of equal scores the first tiles are taken. A block has a tile of queries.
extern "C" __global__ void __launch_bounds__(PICK) plan_pick(const __grid_constant__ PlanArgs a) {
  __shared__ u32 bins[256], held[2][HELD];
  __shared__ u32 chosen, spent;
  u32 tile = blockIdx.x, h = blockIdx.y, t = threadIdx.x, row = h * a.queryTiles + tile;
  const u32* scores = (const u32*)(a.scores + (i64)row * a.tiles);
  const int* tokens = a.tokens + (i64)h * a.room;
  int* list = a.lists + (i64)row * a.tiles;
  if (a.tiles <= HELD) {  // they are read six times
    for (u32 i = t; i < a.tiles; i += PICK) held[0][i] = scores[i], held[1][i] = (u32)tokens[i];
    __syncthreads();
    scores = held[0], tokens = (const int*)held[1];
  }
  u32 each = (a.tiles + PICK - 1) / PICK, lo = min(a.tiles, t * each), hi = min(a.tiles, lo + each);
  bool dense = a.dense != nullptr && a.dense[h] != 0;
  u32 mine = 0, all;
  for (u32 i = lo; i < hi; i++)
    if (a.kinds[i] >= 2) mine += (u32)tokens[i];
  sumBlock(mine, all);
  u32 budget = max(a.least, (u32)(a.fraction * (double)all + 0.5));
  u32 prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bins[t] = 0;
    __syncthreads();
    for (u32 i = t; i < a.tiles; i += PICK) {
      u32 k = scores[i];
      if (a.kinds[i] >= 2 && k != 0 && (shift == 24 || k >> (shift + 8) == prefix)) atomicAdd(&bins[k >> shift & 255], (u32)tokens[i]);
    }
    __syncthreads();
    // Bins from the largest on: the first that does not fit holds the score looked for.
    u32 own = bins[255 - t], before = sumBlock(own, all);
    if (t == 0) chosen = 0, spent = all;
    __syncthreads();
    if (before <= budget && before + own > budget) chosen = 255 - t, spent = before;
    __syncthreads();
    if (all <= budget) {  // everything fits: this happens at the first digit only, later ones have a bin too large
      prefix = 0;
      break;
    }
    prefix = prefix << 8 | chosen;
    budget -= spent;
    __syncthreads();
  }
  // Scores above prefix are taken, and of those equal to it the first that fit.
  mine = 0;
  for (u32 i = lo; i < hi; i++)
    if (a.kinds[i] >= 2 && scores[i] == prefix && prefix != 0) mine += (u32)tokens[i];
  u32 used = sumBlock(mine, all), count = 0;
  for (u32 pass = 0; pass < 2; pass++) {
    u32 sum = used, at = 0;
    if (pass == 1) {
      at = sumBlock(count, all);
    }
    for (u32 i = lo; i < hi; i++) {
      u32 kind = (u32)a.kinds[i], k = scores[i];
      bool take = kind == 1 || (dense && kind != 0 && tokens[i] != 0);  // nothing of a tile beyond a head's length
      if (kind >= 2 && k > prefix) take = true;
      if (kind >= 2 && k == prefix && prefix != 0) {
        sum += (u32)tokens[i];
        take = take || sum <= budget;
      }
      if (!take) continue;
      if (pass == 1) list[at++] = (int)i;
      else count++;
    }
  }
  __syncthreads();
  if (t == 0) ((u32*)a.scores)[(i64)row * a.tiles] = all;  // for plan_keys; the scores have been read
}

// plan_keys puts the lists one behind the other, and says what counts by its mean because it is not listed. A block has a list; it adds
// up the lengths of those before.
extern "C" __global__ void __launch_bounds__(PICK) plan_keys(const __grid_constant__ PlanArgs a) {
  u32 row = blockIdx.x, t = threadIdx.x, mine = 0, before;
  for (u32 i = t; i < row; i += PICK) mine += ((const u32*)a.scores)[(i64)i * a.tiles];
  sumBlock(mine, before);
  u32 from = min(before, a.entries), end = min(before + ((const u32*)a.scores)[(i64)row * a.tiles], a.entries);
  if (t == 0) a.tileEnds[row] = (int)end;
  for (u32 i = t; from + i < end; i += PICK) a.tileKeys[from + i] = a.lists[(i64)row * a.tiles + i];
  if (a.rest == nullptr) return;
  u32 h = row / a.queryTiles;
  float* rest = a.rest + (i64)row * a.tiles;
  for (u32 i = t; i < a.tiles; i += PICK) rest[i] = a.kinds[i] >= 2 ? a.logs[(i64)h * a.room + i] : -INF;
  __syncthreads();
  for (u32 i = t; from + i < end; i += PICK) rest[a.lists[(i64)row * a.tiles + i]] = -INF;
}

// plan_rest writes the mean keys as attention takes them, those of old tiles turned to the time at which old keys are seen. A thread
// has a pair of elements.
extern "C" __global__ void __launch_bounds__(256) plan_rest(const __grid_constant__ PlanArgs a) {
  u32 pairs = a.headDim / 2, i = blockIdx.x * 256 + threadIdx.x, tile = i / pairs, pair = i % pairs;
  if (tile >= a.tiles) return;
  i64 at = ((i64)blockIdx.y * a.room + tile) * a.headDim + 2 * pair;
  float2 v = a.kinds[tile] >= 2 ? *(const float2*)(a.means + at) : make_float2(0.0f, 0.0f);
  if (a.kinds[tile] == 3 && pair < a.turned) {
    float2 r = ((const float2*)a.turns)[pair];
    v = make_float2(v.x * r.x - v.y * r.y, v.x * r.y + v.y * r.x);
  }
  store(a.restKeys, at, a.keyHalf, v.x);
  store(a.restKeys, at + 1, a.keyHalf, v.y);
}
