// The nearest key of every query among those that share a bucket with it, see README.md.
struct BucketsArgs {
  const u64 *query, *weak, *keys;
  const float* lengths;  // of keys
  const int* counts;     // [heads] or null
  int *order, *ends, *best;
  float* score;
  u32 heads, queries, queryRoom, room, words, bits, tables, tableBits;
};
static_assert(sizeof(BucketsArgs) == 104, "BucketsArgs is mirrored by bucketsArgs in buckets.go");

#define FULL 0xffffffffu
#define SORT 1024  // threads of buckets_sort
#define WARPS 8    // queries of a block of buckets_match

// bucketOf cuts the number of a table out of a code; of uncertain bits, its own.
__device__ __forceinline__ u32 bucketOf(const u64* code, u32 table, u32 bits) {
  u32 each = 64 / bits;
  return (u32)(code[table / each] >> table % each * bits) & ((1u << bits) - 1);
}

// sumBefore returns the sum of the numbers of the threads before this one.
__device__ __forceinline__ u32 sumBefore(u32 x) {
  __shared__ u32 parts[SORT / 32];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, up = x;
#pragma unroll
  for (int w = 1; w < 32; w <<= 1) {
    u32 y = __shfl_up_sync(FULL, up, w);
    if (lane >= (u32)w) up += y;
  }
  if (lane == 31) parts[warp] = up;
  __syncthreads();
  u32 before = 0;
  for (u32 w = 0; w < warp; w++) before += parts[w];
  return before + up - x;
}

// buckets_sort orders the keys of a head by their buckets in a table: they are counted, the buckets' places are sums, and keys are put there.
// Which of a bucket's keys is first depends on timing; what is found does not. A block has a table of a head.
extern "C" __global__ void __launch_bounds__(SORT) buckets_sort(const __grid_constant__ BucketsArgs a) {
  u32 t = threadIdx.x, table = blockIdx.x, h = blockIdx.y, buckets = 1u << a.tableBits;
  u32 count = a.counts == nullptr ? a.room : min(a.room, (u32)max(a.counts[h], 0));
  const u64* keys = a.keys + (u64)h * a.room * a.words;
  int *order = a.order + ((u64)h * a.tables + table) * a.room, *ends = a.ends + ((u64)h * a.tables + table) * buckets;
  volatile int* now = ends;  // what other threads added is not in this one's cache
  for (u32 b = t; b < buckets; b += SORT) ends[b] = 0;
  __syncthreads();
  for (u32 k = t; k < count; k += SORT) atomicAdd(&ends[bucketOf(keys + (u64)k * a.words, table, a.tableBits)], 1);
  __syncthreads();
  u32 each = (buckets + SORT - 1) / SORT, lo = min(buckets, t * each), hi = min(buckets, lo + each), sum = 0;
  for (u32 b = lo; b < hi; b++) sum += (u32)now[b];
  u32 at = sumBefore(sum);
  for (u32 b = lo; b < hi; b++) {
    u32 n = (u32)now[b];
    now[b] = (int)at;
    at += n;
  }
  __syncthreads();
  // A bucket's beginning moves to its end.
  for (u32 k = t; k < count; k += SORT) order[atomicAdd(&ends[bucketOf(keys + (u64)k * a.words, table, a.tableBits)], 1)] = (int)k;
}

// buckets_match ranks the keys of the buckets of a query, and of those that differ in an uncertain bit, as match_codes does. A warp has a query, a
// lane every 32nd key of a bucket. A key that shares several buckets is ranked as often.
extern "C" __global__ void __launch_bounds__(32 * WARPS) buckets_match(const __grid_constant__ BucketsArgs a) {
  extern __shared__ float cosines[];  // [bits + 1]
  for (u32 i = threadIdx.x; i <= a.bits; i += 32 * WARPS) cosines[i] = angle(i, a.bits);
  __syncthreads();
  u32 lane = threadIdx.x % 32, i = blockIdx.x * WARPS + threadIdx.x / 32, h = blockIdx.y, buckets = 1u << a.tableBits;
  if (i >= a.queries) return;
  const u64 *query = a.query + ((u64)h * a.queryRoom + i) * a.words, *weak = a.weak + ((u64)h * a.queryRoom + i) * a.words, *keys = a.keys + (u64)h * a.room * a.words;
  const float* lengths = a.lengths + (u64)h * a.room;
  float top = __int_as_float(0xff800000);
  u32 at = 0xffffffffu;
  for (u32 table = 0; table < a.tables; table++) {
    const int *order = a.order + ((u64)h * a.tables + table) * a.room, *ends = a.ends + ((u64)h * a.tables + table) * buckets;
    u32 own = bucketOf(query, table, a.tableBits), left = bucketOf(weak, table, a.tableBits), bucket = own;
    for (;;) {
      u32 lo = bucket == 0 ? 0 : (u32)ends[bucket - 1], hi = (u32)ends[bucket];
      for (u32 e = lo + lane; e < hi; e += 32) {
        u32 key = (u32)order[e], differ = 0;
        for (u32 w = 0; w < a.words; w++) differ += (u32)__popcll(keys[(u64)key * a.words + w] ^ query[w]);
        float s = lengths[key] * cosines[differ];
        if (s > top || (s == top && key < at)) top = s, at = key;
      }
      if (left == 0) break;
      bucket = own ^ (left & -left);
      left &= left - 1;
    }
  }
#pragma unroll
  for (int w = 16; w > 0; w >>= 1) {
    float s = __shfl_xor_sync(FULL, top, w);
    u32 key = __shfl_xor_sync(FULL, at, w);
    if (s > top || (s == top && key < at)) top = s, at = key;
  }
  if (lane == 0) a.best[(u64)h * a.queries + i] = (int)at, a.score[(u64)h * a.queries + i] = top;
}
