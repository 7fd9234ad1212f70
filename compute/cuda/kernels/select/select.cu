// Keys that any query is near to, see README.md.
struct SelectArgs {
  const void *query, *keys, *values;
  const float* logCount;
  const u64 *queryCodes, *keyCodes, *weak;  // [heads, queries or count, words], with hashes
  const float* norms;                       // [heads, count]
  int* keep;
  void *toKeys, *toValues;
  float* toCount;
  int* lengths;
  i64 queryHead, queryRow, keyHead, keyRow, valueHead, valueRow;
  u32 heads, queries, count, headDim, bits, top, last, room, queryHalf, keyHalf, tables, tableBits;
  const float* products;  // [queries, count] of head first, or null
  const bf16* known;      // [heads, count, headDim], what norms multiply; or null
  u32 first, words;
};
static_assert(sizeof(SelectArgs) == 224, "SelectArgs is mirrored by selectArgs in select.go");

#define FULL 0xffffffffu
#define MOST 1024      // keys
#define MOST_BITS 512  // of codes

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }

// select_begin keeps the last keys. One block.
extern "C" __global__ void __launch_bounds__(256) select_begin(const __grid_constant__ SelectArgs a) {
  for (u32 k = threadIdx.x; k < a.count; k += 256) a.keep[k] = k + a.last >= a.count;
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
  __shared__ float query[8][256], cosines[MOST_BITS + 1];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 8 + warp, h = a.first + blockIdx.y;
  for (u32 k = threadIdx.x; k <= a.bits && a.bits > 0; k += 256) cosines[k] = angle(k, a.bits);
  if (i < a.queries && a.bits == 0 && a.products == nullptr)
    for (u32 d = lane; d < a.headDim; d += 32) query[warp][d] = element(a.query, h * a.queryHead + (i64)i * a.queryRow + d, a.queryHalf);
  __syncthreads();
  if (i >= a.queries) return;
  u64 scores[MOST / 32];
  u64 at = ((u64)h * a.queries + i) * a.words;
  const u64 *own = a.queryCodes + at, *weak = a.weak + at, *keys = a.keyCodes + (u64)h * a.count * a.words;
  if (a.tables > 0 && a.top == 0) {
    for (u32 key = lane; key < a.count; key += 32)
      if (sharesBucket(own, keys + key * a.words, weak, a.tables, a.tableBits)) a.keep[key] = 1;
    return;
  }
#pragma unroll
  for (u32 k = 0; k < MOST / 32; k++) {
    u32 key = k * 32 + lane;
    scores[k] = 0;
    if (key >= a.count) continue;
    float s = 0.0f;
    if (a.bits > 0) {
      if (a.tables > 0 && !sharesBucket(own, keys + key * a.words, weak, a.tables, a.tableBits)) continue;
      u32 differ = 0;
      for (u32 w = 0; w < a.words; w++) differ += (u32)__popcll(own[w] ^ keys[key * a.words + w]);
      s = a.norms[h * a.count + key] * cosines[differ];
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
