// Tokens of frames in an order in which runs of them are near each other, see README.md.
struct SplitArgs {
  const void *keys, *values;
  void *toKeys, *toValues;
  int* order;
  const int *fresh, *moved;
  const float* turns;
  i64 keyHead, keyRow, valueHead, valueRow, toHead, orderHead;
  u32 heads, tokens, padded, tile, headDim, turned, half, size;
};
static_assert(sizeof(SplitArgs) == 144, "SplitArgs is mirrored by splitArgs in split.go");

#define FULL 0xffffffffu
#define SPLIT 1024  // threads of split_order

// pairAt is a pair of elements of a key, turned back in time if it is old: rounded operation by operation, as the host has it.
__device__ __forceinline__ float2 pairAt(const SplitArgs& a, i64 row, u32 pair, bool old) {
  float2 v;
  if (a.half) {
    u32 w = *(const u32*)((const bf16*)a.keys + row + 2 * pair);
    v = make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
  } else {
    v = *(const float2*)((const float*)a.keys + row + 2 * pair);
  }
  if (!old || pair >= a.turned) return v;
  float2 r = ((const float2*)a.turns)[pair];
  return make_float2(__fadd_rn(__fmul_rn(v.x, r.x), __fmul_rn(v.y, r.y)), __fsub_rn(__fmul_rn(v.y, r.x), __fmul_rn(v.x, r.y)));
}

// widest is the axis along which a set of tokens varies most, of equal ones the first. A warp has the set; sums are in order.
__device__ __forceinline__ u32 widest(const SplitArgs& a, i64 head, u32 place, const u32* order, u32 many, bool old) {
  u32 lane = threadIdx.x % 32, at = 0;
  float most = __int_as_float(0xff800000);
  for (u32 pair = lane; 2 * pair < a.headDim; pair += 32) {
    float s0 = 0.0f, s1 = 0.0f, r0 = 0.0f, r1 = 0.0f;
#pragma unroll 16
    for (u32 i = 0; i < many; i++) {
      float2 x = pairAt(a, head + (i64)(place * a.tokens + order[i]) * a.keyRow, pair, old);
      s0 = __fadd_rn(s0, x.x), r0 = __fadd_rn(r0, __fmul_rn(x.x, x.x));
      s1 = __fadd_rn(s1, x.y), r1 = __fadd_rn(r1, __fmul_rn(x.y, x.y));
    }
    float v = __fsub_rn(r0, __fmul_rn(s0, s0) / (float)many), w = __fsub_rn(r1, __fmul_rn(s1, s1) / (float)many);
    if (v > most) most = v, at = 2 * pair;
    if (w > most) most = w, at = 2 * pair + 1;
  }
#pragma unroll
  for (int w = 1; w < 32; w <<= 1) {
    float v = __shfl_xor_sync(FULL, most, w);
    u32 other = __shfl_xor_sync(FULL, at, w);
    if (v > most || (v == most && other < at)) most = v, at = other;
  }
  return at;
}

// split_order halves the tokens of a frame at the median of the coordinate that varies most, again and again, until no set is larger than a tile:
// all sets of a size at once, sorted together by set, coordinate and token. A block has a frame of a head.
extern "C" __global__ void __launch_bounds__(SPLIT, 1) split_order(const __grid_constant__ SplitArgs a) {
  extern __shared__ float4 shared[];
  __shared__ u32 count;
  u64* keys = (u64*)shared;  // [size], a power of two; the sets of a round before that
  u32 *sets = (u32*)keys, *order = (u32*)(keys + a.size), *from = order + a.tokens, *many = from + a.tokens, *axis = many + a.tokens, n = a.tokens;
  u32 t = threadIdx.x, place = (u32)a.fresh[blockIdx.x] / 2;
  bool old = a.fresh[blockIdx.x] & 1;
  i64 head = blockIdx.y * a.keyHead;
  for (u32 p = t; p < n; p += SPLIT) order[p] = p, from[p] = 0, many[p] = n;
  for (;;) {
    __syncthreads();
    if (t == 0) count = 0;
    __syncthreads();
    for (u32 p = t; p < n; p += SPLIT)
      if (from[p] == p && many[p] > a.tile) sets[atomicAdd(&count, 1u)] = p;
    __syncthreads();
    u32 all = count;
    if (all == 0) break;
    for (u32 k = t / 32; k < all; k += SPLIT / 32) {
      u32 first = sets[k], x = widest(a, head, place, order + first, many[first], old);
      if (t % 32 == 0) axis[first] = x;
    }
    __syncthreads();
    for (u32 p = t; p < a.size; p += SPLIT) {
      u64 key = ~0ull;
      if (p < n) {
        u32 u = p;  // a set that is done keeps its order
        if (many[p] > a.tile) {
          u32 x = axis[from[p]];
          float2 v = pairAt(a, head + (i64)(place * n + order[p]) * a.keyRow, x / 2, old);
          u = __float_as_uint((x % 2 ? v.y : v.x) + 0.0f);
          u = u & 0x80000000u ? ~u : u | 0x80000000u;
        }
        key = (u64)from[p] << 48 | (u64)u << 16 | order[p];
      }
      keys[p] = key;
    }
    for (u32 run = 2; run <= a.size; run *= 2)
      for (u32 step = run / 2; step > 0; step /= 2) {
        __syncthreads();
        for (u32 i = t; i < a.size / 2; i += SPLIT) {
          u32 lo = i / step * 2 * step + i % step, hi = lo + step;
          u64 x = keys[lo], y = keys[hi];
          if ((x > y) == ((lo & run) == 0)) keys[lo] = y, keys[hi] = x;
        }
      }
    __syncthreads();
    for (u32 p = t; p < n; p += SPLIT) {
      order[p] = (u32)keys[p] & 0xffff;
      if (many[p] <= a.tile) continue;
      u32 half = (many[p] + a.tile - 1) / a.tile / 2 * a.tile, lo = from[p];
      if (p - lo < half) many[p] = half;
      else from[p] = lo + half, many[p] -= half;
    }
  }
  for (u32 p = t; p < n; p += SPLIT) a.order[blockIdx.y * a.orderHead + place * n + p] = (int)order[p];
}

// split_copy copies keys and values of frames in that order, a frame to padded rows. A warp has a token.
extern "C" __global__ void __launch_bounds__(256) split_copy(const __grid_constant__ SplitArgs a) {
  u32 i = blockIdx.x * 8 + threadIdx.x / 32, place = (u32)a.moved[blockIdx.y], h = blockIdx.z, size = a.half ? 2 : 4;
  if (i >= a.tokens) return;
  i64 from = place * a.tokens + a.order[h * a.orderHead + place * a.tokens + i], to = (h * a.toHead + (i64)(place * a.padded + i) * a.headDim) * size;
  const u32 *k = (const u32*)((const char*)a.keys + (h * a.keyHead + from * a.keyRow) * size), *v = (const u32*)((const char*)a.values + (h * a.valueHead + from * a.valueRow) * size);
  for (u32 d = threadIdx.x % 32; d < a.headDim * size / 4; d += 32) ((u32*)((char*)a.toKeys + to))[d] = k[d], ((u32*)((char*)a.toValues + to))[d] = v[d];
}
