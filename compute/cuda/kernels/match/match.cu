// The nearest key of every query, see README.md. Scores are products of bfloat16 halves on the matrix units: x = hi + lo, and
// x*y = hi*hi + hi*lo + lo*hi, within 2^-16 of float products.
struct MatchArgs {
  const void *query, *keys;
  const int* lengths;  // [heads] or null
  int* best;
  float* score;
  u64* found;  // [heads, queries]: score and key of the best so far
  i64 queryHead, queryRow, keyHead, keyRow;
  u32 heads, queries, keyCount, width, pieces, pieceKeys;
  u32 queryHalf, keyHalf;
  const float* keyLengths;  // of match_codes, whose width is in words
  u32 bits, codeRoom;       // queries and keys that codes have room for
  u32 queryRoom, pad;
};
static_assert(sizeof(MatchArgs) == 136, "MatchArgs is mirrored by matchArgs in match.go");

#define FULL 0xffffffffu

// better is larger for larger scores, of equal ones for smaller keys; 0 stands for none, NaN is never offered.
__device__ __forceinline__ u64 better(float score, u32 key) {
  u32 u = __float_as_uint(score);
  u = u & 0x80000000u ? ~u : u | 0x80000000u;
  return (u64)u << 32 | (0xffffffffu - key);
}

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }

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

// match_begin forgets what was found, match_end writes the result.
extern "C" __global__ void __launch_bounds__(256) match_begin(const __grid_constant__ MatchArgs a) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i < a.heads * a.queries) a.found[i] = 0;
}

extern "C" __global__ void __launch_bounds__(256) match_end(const __grid_constant__ MatchArgs a) {
  u32 i = blockIdx.x * 256 + threadIdx.x;
  if (i >= a.heads * a.queries) return;
  u64 f = a.found[i];
  u32 u = (u32)(f >> 32);
  a.best[i] = f == 0 ? -1 : (int)(0xffffffffu - (u32)f);
  a.score[i] = f == 0 ? __int_as_float(0xff800000) : __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u);
}

__device__ __forceinline__ u32 keysOf(const MatchArgs& a, u32 head) {
  return a.lengths == nullptr ? a.keyCount : (u32)min((int)a.keyCount, max(a.lengths[head], 0));
}

#define TILE 64  // keys of a step
#define MOST 128 // width of the fast kernel

#define LANE 20         // words of a row that belong to a lane of four: 16, and 4 that keep rows apart in the banks
#define LONG (4 * LANE)  // words of a row

// quarters are the pairs of 16 elements that a lane multiplies in two steps: one access of 16 bytes.
__device__ __forceinline__ uint4 quarters(const u32 (&rows)[TILE][LONG], u32 row, u32 c, u32 k) { return *(const uint4*)&rows[row][c * LANE + 2 * k]; }

// bringKeys reads the pairs of elements of TILE keys, those of a thread; what is not there is 0.
__device__ __forceinline__ void bringKeys(const MatchArgs& a, u32 head, u32 k0, u32 end, u32 pairs, float2 (&v)[TILE * MOST / 512]) {
#pragma unroll
  for (u32 m = 0; m < TILE * MOST / 512; m++) {
    u32 i = threadIdx.x + 256 * m, y = i / pairs, x = i % pairs;
    v[m] = make_float2(0.0f, 0.0f);
    if (y >= TILE || k0 + y >= end || 2 * x >= a.width) continue;
    i64 from = head * a.keyHead + (i64)(k0 + y) * a.keyRow + 2 * x;
    v[m] = make_float2(element(a.keys, from, a.keyHalf), element(a.keys, from + 1, a.keyHalf));
  }
}

// match_fast takes widths up to 128. A block has 256 queries, a warp 32 of them in registers, and walks a piece of the keys. Rows lie in
// shared memory so that what a lane multiplies is together: word j of step k of lane c is at c*LANE + 2k + j.
extern "C" __global__ void __launch_bounds__(256, 1) match_fast(const __grid_constant__ MatchArgs a) {
  __shared__ __align__(16) u32 hi[TILE][LONG], lo[TILE][LONG];
  u32 t = threadIdx.x, lane = t % 32, head = blockIdx.y, steps = a.width / 16;
  u32 q0 = blockIdx.x * 256 + t / 32 * 32, r = lane / 4, c = lane % 4;
  u32 first = blockIdx.z * a.pieceKeys, end = min(keysOf(a, head), first + a.pieceKeys);
  if (first >= end) return;
  u32 qh[2][MOST / 16][4], ql[2][MOST / 16][4];
#pragma unroll
  for (u32 m = 0; m < 2; m++)
#pragma unroll
    for (u32 k = 0; k < MOST / 16; k++)
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        qh[m][k][j] = ql[m][k][j] = 0;
        u32 q = q0 + m * 16 + r + j % 2 * 8, at = k * 16 + j / 2 * 8 + c * 2;
        if (k >= steps || q >= a.queries) continue;
        i64 from = head * a.queryHead + (i64)q * a.queryRow + at;
        split(element(a.query, from, a.queryHalf), element(a.query, from + 1, a.queryHalf), qh[m][k][j], ql[m][k][j]);
      }
  float top[4];
  u32 at[4];
#pragma unroll
  for (u32 j = 0; j < 4; j++) top[j] = __int_as_float(0xff800000), at[j] = 0xffffffffu;
  // All 16 pairs of elements of a step, also where the width ends before: an even number of steps is multiplied. The next keys are on their
  // way while these are multiplied.
  u32 pairs = (steps + 1) / 2 * 16;
  float2 next[TILE * MOST / 512];
  bringKeys(a, head, first, end, pairs, next);
  for (u32 k0 = first; k0 < end; k0 += TILE) {
    __syncthreads();
#pragma unroll
    for (u32 m = 0; m < TILE * MOST / 512; m++) {
      u32 i = t + 256 * m, y = i / pairs, x = i % pairs, to = x % 4 * LANE + x / 8 * 2 + x / 4 % 2;
      if (y < TILE) split(next[m].x, next[m].y, hi[y][to], lo[y][to]);
    }
    __syncthreads();
    if (k0 + TILE < end) bringKeys(a, head, k0 + TILE, end, pairs, next);
#pragma unroll 1
    for (u32 n = 0; n < TILE; n += 16) {  // two columns of eight keys at a time: four sums that do not wait for each other
      float s[2][2][4] = {};
#pragma unroll
      for (u32 k = 0; k < MOST / 16; k += 2) {
        if (k >= steps) break;
        uint4 h[2] = {quarters(hi, n + r, c, k), quarters(hi, n + 8 + r, c, k)}, l[2] = {quarters(lo, n + r, c, k), quarters(lo, n + 8 + r, c, k)};
#pragma unroll
        for (u32 p = 0; p < 6; p++)
#pragma unroll
          for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
              const uint4& b = p % 3 == 1 ? l[i] : h[i];
              multiply(s[m][i], p % 3 == 0 ? ql[m][k + p / 3] : qh[m][k + p / 3], p < 3 ? b.x : b.z, p < 3 ? b.y : b.w);
            }
      }
#pragma unroll
      for (u32 m = 0; m < 2; m++)
#pragma unroll
        for (u32 i = 0; i < 2; i++)
#pragma unroll
          for (u32 j = 0; j < 4; j++) {
            u32 key = k0 + n + i * 8 + c * 2 + j % 2;
            if (key < end && s[m][i][j] > top[2 * m + j / 2]) top[2 * m + j / 2] = s[m][i][j], at[2 * m + j / 2] = key;
          }
    }
  }
#pragma unroll
  for (u32 j = 0; j < 4; j++) {
    u64 found = at[j] == 0xffffffffu ? 0 : better(top[j], at[j]);
#pragma unroll
    for (int w = 1; w < 4; w <<= 1) found = max(found, __shfl_xor_sync(FULL, found, w));
    u32 q = q0 + r + j * 8;
    if (c == 0 && q < a.queries && found != 0) atomicMax(&a.found[(u64)head * a.queries + q], found);
  }
}

#define CODES 64  // keys at a time of match_codes

// match_codes ranks keys by the number of bits in which their codes differ from the query's. A block has 128 queries, one a thread, and
// walks a piece of the keys.
extern "C" __global__ void __launch_bounds__(128) match_codes(const __grid_constant__ MatchArgs a) {
  extern __shared__ float4 shared[];
  u64 *keys = (u64*)shared, *own = keys + CODES * a.width + threadIdx.x * (a.width + 1);  // [CODES][width], [128][width + 1]
  float *lengths = (float*)(keys + CODES * a.width + 128 * (a.width + 1)), *cosines = lengths + CODES;  // [CODES], [bits + 1]
  u32 t = threadIdx.x, head = blockIdx.y, q = blockIdx.x * 128 + t;
  u32 first = blockIdx.z * a.pieceKeys, end = min(keysOf(a, head), first + a.pieceKeys);
  if (first >= end) return;
  for (u32 i = t; i <= a.bits; i += 128) cosines[i] = angle(i, a.bits);
  for (u32 w = 0; w < a.width; w++) own[w] = q < a.queries ? ((const u64*)a.query)[((u64)head * a.queryRoom + q) * a.width + w] : 0;
  float top = __int_as_float(0xff800000);
  u32 at = 0xffffffffu;
  for (u32 k0 = first; k0 < end; k0 += CODES) {
    u32 n = min((u32)CODES, end - k0);
    __syncthreads();
    for (u32 i = t; i < n * a.width; i += 128) keys[i] = ((const u64*)a.keys)[((u64)head * a.codeRoom + k0) * a.width + i];
    if (t < n) lengths[t] = a.keyLengths[(u64)head * a.codeRoom + k0 + t];
    __syncthreads();
    u64 word = own[0];
    for (u32 k = 0; k < n; k++) {
      u32 differ = (u32)__popcll(keys[k * a.width] ^ word);
      for (u32 w = 1; w < a.width; w++) differ += (u32)__popcll(keys[k * a.width + w] ^ own[w]);
      float s = lengths[k] * cosines[differ];
      if (s > top) top = s, at = k0 + k;
    }
  }
  if (q < a.queries && at != 0xffffffffu) atomicMax(&a.found[(u64)head * a.queries + q], better(top, at));
}

#define ROW 65

// match_any takes every width, in float. A block has 64 queries and walks a piece of the keys, 64 at a time, 16 elements at a time.
extern "C" __global__ void __launch_bounds__(256) match_any(const __grid_constant__ MatchArgs a) {
  __shared__ float qs[16][ROW], ks[16][ROW];
  u32 t = threadIdx.x, tx = t % 16, ty = t / 16, head = blockIdx.y, q0 = blockIdx.x * 64;
  u32 first = blockIdx.z * a.pieceKeys, end = min(keysOf(a, head), first + a.pieceKeys);
  if (first >= end) return;
  u64 found[4] = {};
  for (u32 k0 = first; k0 < end; k0 += 64) {
    float s[4][4] = {};
    for (u32 w0 = 0; w0 < a.width; w0 += 16) {
      __syncthreads();
      for (u32 i = t; i < 64 * 16; i += 256) {
        u32 y = i / 16, x = i % 16;
        bool in = w0 + x < a.width;
        qs[x][y] = in && q0 + y < a.queries ? element(a.query, head * a.queryHead + (i64)(q0 + y) * a.queryRow + w0 + x, a.queryHalf) : 0.0f;
        ks[x][y] = in && k0 + y < end ? element(a.keys, head * a.keyHead + (i64)(k0 + y) * a.keyRow + w0 + x, a.keyHalf) : 0.0f;
      }
      __syncthreads();
#pragma unroll 4
      for (u32 x = 0; x < 16; x++)
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
          for (u32 j = 0; j < 4; j++) s[i][j] += qs[x][ty + 16 * i] * ks[x][tx + 16 * j];
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        u32 key = k0 + tx + 16 * j;
        if (key < end && s[i][j] > __int_as_float(0xff800000)) found[i] = max(found[i], better(s[i][j], key));
      }
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
#pragma unroll
    for (int w = 8; w > 0; w >>= 1) found[i] = max(found[i], __shfl_xor_sync(FULL, found[i], w));
    u32 q = q0 + ty + 16 * i;
    if (tx == 0 && q < a.queries && found[i] != 0) atomicMax(&a.found[(u64)head * a.queries + q], found[i]);
  }
}
