// Keys that any query is near to, see README.md.
struct SelectArgs {
  const void *query, *keys, *values;
  const float *logCount, *planes;
  u64* codes;
  float* norms;
  int* keep;
  void *toKeys, *toValues;
  float* toCount;
  int* lengths;
  i64 queryHead, queryRow, keyHead, keyRow, valueHead, valueRow;
  u32 heads, queries, count, headDim, bits, top, last, room, queryHalf, keyHalf, tables, probes;
  const float* products;  // [queries, count] of head first, or null
  const bf16* known;      // [heads, count, headDim], what norms multiply; or null
  u32 first, pad;
};
static_assert(sizeof(SelectArgs) == 216, "SelectArgs is mirrored by selectArgs in select.go");

#define FULL 0xffffffffu
#define MOST 1024  // keys

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }

#define HASHED 32  // rows of a block of select_hash

// select_hash writes the signs of the products of queries and keys with the planes, and the keys' lengths; with tables also, behind
// all signs, which bits of each table of a query's signs are the least certain. A block of 64 threads has HASHED rows, one after the other, a thread
// a plane, which lies in shared memory: [headDim][65].
extern "C" __global__ void __launch_bounds__(64) select_hash(const __grid_constant__ SelectArgs a) {
  extern __shared__ float4 shared[];
  float* planes = (float*)shared;
  __shared__ float row[256], size[64];
  __shared__ u32 signs[2];
  __shared__ u64 weak;
  u32 h = blockIdx.y, t = threadIdx.x, last = min((blockIdx.x + 1) * HASHED, a.queries + a.count);
  for (u32 k = t; k < a.bits * a.headDim; k += 64) planes[k % a.headDim * 65 + k / a.headDim] = a.planes[k];
  if (blockIdx.x == 0 && h == 0)
    for (u32 k = t; k < a.count; k += 64) a.keep[k] = k + a.last >= a.count;
  if (a.bits == 0) return;
  for (u32 i = blockIdx.x * HASHED; i < last; i++) {
    bool key = i >= a.queries;
    __syncthreads();
    for (u32 d = t; d < a.headDim; d += 64)
      row[d] = key ? element(a.keys, h * a.keyHead + (i64)(i - a.queries) * a.keyRow + d, a.keyHalf) : element(a.query, h * a.queryHead + (i64)i * a.queryRow + d, a.queryHalf);
    __syncthreads();
    float s = 0.0f, square = 0.0f;
    if (t < a.bits) {
#pragma unroll 8
      for (u32 d = 0; d < a.headDim; d++) s += row[d] * planes[d * 65 + t];
    }
    u32 word = __ballot_sync(FULL, t < a.bits && s >= 0.0f);
    if (t % 32 == 0) signs[t / 32] = word;
    size[t] = fabsf(s);
    if (t == 0) weak = 0;
    if (key && t == 0) {
      for (u32 d = 0; d < a.headDim; d++) square += row[d] * row[d];
      a.norms[h * a.count + i - a.queries] = sqrtf(square);
    }
    __syncthreads();
    if (t == 0) a.codes[(u64)h * (a.queries + a.count) + i] = (u64)signs[1] << 32 | signs[0];
    if (a.tables == 0 || key) continue;
    if (t < a.tables) {
      u32 each = a.bits / a.tables;
      u64 used = 0;
      for (u32 p = 0; p < a.probes; p++) {
        u32 at = 0;
        float least = __int_as_float(0x7f800000);
        for (u32 b = t * each; b < (t + 1) * each; b++)
          if (size[b] < least && !(used >> b & 1)) least = size[b], at = b;
        used |= 1ull << at;
      }
      atomicOr((unsigned long long*)&weak, (unsigned long long)used);
    }
    __syncthreads();
    if (t == 0) a.codes[(u64)a.heads * (a.queries + a.count) + (u64)h * a.queries + i] = weak;
  }
}

// better is larger for larger scores, of equal ones for smaller keys.
__device__ __forceinline__ u64 better(float score, u32 key) {
  u32 u = __float_as_uint(score);
  u = u & 0x80000000u ? ~u : u | 0x80000000u;
  return (u64)u << 32 | (0xffffffffu - key);
}

// select_mark marks the nearest keys of every query, with tables of those that share a bucket with it or with one that differs from its
// own in a single bit of the least certain, or all of those. A warp has a query, a lane every 32nd key.
extern "C" __global__ void __launch_bounds__(256) select_mark(const __grid_constant__ SelectArgs a) {
  __shared__ float query[8][256], cosines[65];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 8 + warp, h = a.first + blockIdx.y;
  if (threadIdx.x <= a.bits && a.bits > 0) cosines[threadIdx.x] = angle(threadIdx.x, a.bits);
  if (i < a.queries && a.bits == 0 && a.products == nullptr)
    for (u32 d = lane; d < a.headDim; d += 32) query[warp][d] = element(a.query, h * a.queryHead + (i64)i * a.queryRow + d, a.queryHalf);
  __syncthreads();
  if (i >= a.queries) return;
  u64 scores[MOST / 32];
  const u64* codes = a.codes + (u64)h * (a.queries + a.count);
  const u64* weak = codes - (u64)h * (a.queries + a.count) + (u64)a.heads * (a.queries + a.count) + (u64)h * a.queries + i;
  u32 each = a.tables > 0 ? a.bits / a.tables : 0;
  if (a.tables > 0 && a.top == 0) {
    for (u32 key = lane; key < a.count; key += 32)
      if (sharesBucket(codes + i, codes + a.queries + key, weak, a.tables, each)) a.keep[key] = 1;
    return;
  }
#pragma unroll
  for (u32 k = 0; k < MOST / 32; k++) {
    u32 key = k * 32 + lane;
    scores[k] = 0;
    if (key >= a.count) continue;
    float s = 0.0f;
    if (a.bits > 0) {
      if (a.tables > 0 && !sharesBucket(codes + i, codes + a.queries + key, weak, a.tables, each)) continue;
      s = a.norms[h * a.count + key] * cosines[__popcll(codes[i] ^ codes[a.queries + key])];
    } else if (a.products != nullptr) {
      s = a.products[(i64)i * a.count + key];
    } else if (a.known != nullptr) {
      for (u32 d = 0; d < a.headDim; d++) s += query[warp][d] * widen(a.known[((u64)h * a.count + key) * a.headDim + d]);
    } else {
      for (u32 d = 0; d < a.headDim; d++) s += query[warp][d] * element(a.keys, h * a.keyHead + (i64)key * a.keyRow + d, a.keyHalf);
    }
    if (a.known != nullptr) s *= a.norms[h * a.count + key];
    if (s == s) scores[k] = better(s, key);
  }
  for (u32 n = 0; n < min(a.top, a.count); n++) {
    u64 best = 0;
#pragma unroll
    for (u32 k = 0; k < MOST / 32; k++) best = max(best, scores[k]);
#pragma unroll
    for (int w = 16; w > 0; w >>= 1) best = max(best, __shfl_xor_sync(FULL, best, w));
    if (best == 0) break;
    u32 key = 0xffffffffu - (u32)best;
    if (lane == 0) a.keep[key] = 1;
#pragma unroll
    for (u32 k = 0; k < MOST / 32; k++)
      if (scores[k] == best) scores[k] = 0;
  }
}

// select_copy copies what was kept. A block has a key of a head; it finds its place by counting.
extern "C" __global__ void __launch_bounds__(128) select_copy(const __grid_constant__ SelectArgs a) {
  __shared__ u32 parts[4];
  u32 key = blockIdx.x, h = blockIdx.y, t = threadIdx.x, n = 0;
  bool last = key + 1 == a.count;
  if (!a.keep[key] && !last) return;
  for (u32 k = t; k < key; k += 128) n += a.keep[k] != 0;
#pragma unroll
  for (int w = 16; w > 0; w >>= 1) n += __shfl_xor_sync(FULL, n, w);
  if (t % 32 == 0) parts[t / 32] = n;
  __syncthreads();
  u32 to = parts[0] + parts[1] + parts[2] + parts[3];
  if (last && t == 0) a.lengths[h] = (int)(to + (a.keep[key] != 0));
  if (!a.keep[key] || to >= a.room) return;
  for (u32 d = t; d < a.headDim; d += 128) {
    i64 at = ((i64)h * a.room + to) * a.headDim + d, k = h * a.keyHead + (i64)key * a.keyRow + d, v = h * a.valueHead + (i64)key * a.valueRow + d;
    if (a.keyHalf) {
      ((bf16*)a.toKeys)[at] = ((const bf16*)a.keys)[k], ((bf16*)a.toValues)[at] = ((const bf16*)a.values)[v];
    } else {
      ((float*)a.toKeys)[at] = ((const float*)a.keys)[k], ((float*)a.toValues)[at] = ((const float*)a.values)[v];
    }
  }
  if (h == 0 && t == 0) a.toCount[to] = a.logCount != nullptr ? a.logCount[key] : 0.0f;
}
