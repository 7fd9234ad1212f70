// Codes of vectors, see README.md.
struct HashArgs {
  const void* x;
  const float* planes;
  const int* counts;
  u64* codes;
  float* lengths;
  u8* packed;
  float *scales, *known;  // known is bf16 with levels
  i64 xHead, xRow;
  u32 heads, rows, width, bits, words, room, xHalf;
  float step;
  u64* weak;  // or null
  u32 tables, tableBits, probes, levels;
};
static_assert(sizeof(HashArgs) == 136, "HashArgs is mirrored by hashArgs in hash.go");

#define FULL 0xffffffffu

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }
__device__ __forceinline__ u32 rowsOf(const HashArgs& a, u32 h) { return a.counts == nullptr ? a.rows : min(a.rows, (u32)max(a.counts[h], 0)); }

#define ROW 65

// uncertain finds the bits of the tables of a word whose products are the smallest: those of one of 16 rows, whose sizes are in shared memory.
__device__ __forceinline__ u64 uncertain(const HashArgs& a, const float* sizes, u32 lane) {
  u32 each = 64 / a.tableBits, first = blockIdx.y * each, many = a.tables > first ? min(each, a.tables - first) : 0;
  u64 all = 0;
  for (u32 n = lane; n < many; n += 16) {
    u64 used = 0;
    for (u32 p = 0; p < a.probes; p++) {
      u32 at = n * a.tableBits;
      float least = __int_as_float(0x7f800000);
      for (u32 b = n * a.tableBits; b < (n + 1) * a.tableBits; b++)
        if (sizes[b] < least && !(used >> b & 1)) least = sizes[b], at = b;
      used |= 1ull << at;
    }
    all |= used;
  }
#pragma unroll
  for (int w = 8; w > 0; w >>= 1) all |= __shfl_xor_sync(FULL, all, w);
  return all;
}

// hash_signs writes the signs of the products of rows with planes, the rows' lengths, and which signs are uncertain. A block has 64 rows and 64 planes, a thread 4 by 4 of
// them; it walks their elements 16 at a time.
extern "C" __global__ void __launch_bounds__(256) hash_signs(const __grid_constant__ HashArgs a) {
  __shared__ float xs[16][ROW], ps[16][ROW];
  u32 t = threadIdx.x, tx = t % 16, ty = t / 16, h = blockIdx.z, r0 = blockIdx.x * 64, p0 = blockIdx.y * 64, rows = rowsOf(a, h);
  if (r0 >= rows) return;
  float s[4][4] = {}, square[4] = {};
  for (u32 w0 = 0; w0 < a.width; w0 += 16) {
    __syncthreads();
    for (u32 i = t; i < 64 * 16; i += 256) {
      u32 y = i / 16, x = i % 16;
      bool in = w0 + x < a.width;
      xs[x][y] = in && r0 + y < rows ? element(a.x, h * a.xHead + (i64)(r0 + y) * a.xRow + w0 + x, a.xHalf) : 0.0f;
      ps[x][y] = in && p0 + y < a.bits ? a.planes[(u64)(p0 + y) * a.width + w0 + x] : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (u32 x = 0; x < 16; x++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        float v = xs[x][ty + 16 * i];
        square[i] += v * v;
#pragma unroll
        for (u32 j = 0; j < 4; j++) s[i][j] += v * ps[x][tx + 16 * j];
      }
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    u32 lo = 0, hi = 0, row = r0 + ty + 16 * i;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      u32 bit = p0 + tx + 16 * j < a.bits && s[i][j] >= 0.0f ? 1u << (tx + 16 * (j % 2)) : 0u;
      if (j < 2) lo |= bit;
      else hi |= bit;
    }
#pragma unroll
    for (int w = 8; w > 0; w >>= 1) lo |= __shfl_xor_sync(FULL, lo, w), hi |= __shfl_xor_sync(FULL, hi, w);
    if (tx != 0 || row >= rows) continue;
    a.codes[((u64)h * a.room + row) * a.words + blockIdx.y] = (u64)hi << 32 | lo;
    // Rounding must not order vectors of unit length.
    if (blockIdx.y == 0 && a.lengths != nullptr) a.lengths[(u64)h * a.room + row] = fabsf(square[i] - 1.0f) < 1e-5f ? 1.0f : sqrtf(square[i]);
  }
  if (a.weak == nullptr) return;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    u32 row = r0 + ty + 16 * i;
    __syncthreads();
#pragma unroll
    for (u32 j = 0; j < 4; j++) xs[ty][tx + 16 * j] = fabsf(s[i][j]);
    __syncthreads();
    u64 weak = uncertain(a, xs[ty], tx);
    if (tx == 0 && row < rows) a.weak[((u64)h * a.room + row) * a.words + blockIdx.y] = weak;
  }
}

// quotient is x / y rounded to nearest, as the host divides, from 1 / y rounded to nearest: the remainder of a first quotient is exact, and corrects it
// (Markstein, IBM J. Res. Dev. 34, 1990). Only below 2^-125 it may differ: 2e8 random pairs, half of them next to whole quotients, gave no other level.
__device__ __forceinline__ float quotient(float x, float y, float inverse) {
  float q = __fmul_rn(x, inverse);
  return __fmaf_rn(__fmaf_rn(-q, y, x), inverse, q);
}

// hash_levels rounds every number of a row to a level, with one scale a row: to bytes, or to what they mean, or both. A warp has a row.
extern "C" __global__ void __launch_bounds__(256) hash_levels(const __grid_constant__ HashArgs a) {
  u32 lane = threadIdx.x % 32, h = blockIdx.y, row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rowsOf(a, h)) return;
  i64 from = h * a.xHead + (i64)row * a.xRow, to = (i64)h * a.room + row;
  float square = 0.0f;
  for (u32 d = lane; d < a.width; d += 32) {
    float v = element(a.x, from + d, a.xHalf);
    square += v * v;
  }
#pragma unroll
  for (int w = 16; w > 0; w >>= 1) square += __shfl_xor_sync(FULL, square, w);
  float scale = a.step * sqrtf(square / (float)a.width), half = (float)(1u << (a.bits - 1));
  float inverse = scale != 0.0f ? __frcp_rn(scale) : 0.0f;
  u32 per = 8 / a.bits, bytes = (a.width + per - 1) / per;
  if (lane == 0 && a.scales != nullptr) a.scales[to] = scale;
  for (u32 b = lane; b < bytes; b += 32) {
    u32 byte = 0;
#pragma unroll 1
    for (u32 j = 0; j < per && b * per + j < a.width; j++) {
      float level = 0.0f, known = 0.0f;
      if (scale != 0.0f) {
        level = fminf(fmaxf(floorf(quotient(element(a.x, from + b * per + j, a.xHalf), scale, inverse)) + half, 0.0f), 2.0f * half - 1.0f);
        known = level - (half - 0.5f);
      }
      byte |= (u32)level << (j * a.bits);
      if (a.levels) put((bf16*)a.known + to * a.width + b * per + j, known);
      else if (a.known != nullptr) a.known[to * a.width + b * per + j] = scale * known;
    }
    if (a.packed != nullptr) a.packed[to * bytes + b] = (u8)byte;
  }
}
