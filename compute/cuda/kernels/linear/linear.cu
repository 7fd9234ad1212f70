// The matrix product for shapes that cuBLASLt declines, and the oracle that checks cuBLASLt on the device, see README.md.
struct LinearArgs {
  void* dst;
  const void* x;
  const void* w;
  const float* bias;
  i64 dstStride, xStride;
  u32 rows, in, out, act;
  u32 dstHalf, xHalf, wHalf, pad;  // 1: bf16
};
static_assert(sizeof(LinearArgs) == 80, "LinearArgs is mirrored by linearArgs in linear.go");

__device__ __forceinline__ float element(const void* p, i64 i, u32 half) {
  return half ? widen(((const bf16*)p)[i]) : ((const float*)p)[i];
}

// A block of 16 x 16 threads computes 64 x 64 results, 4 x 4 a thread, in float.
extern "C" __global__ void __launch_bounds__(256) linear(const __grid_constant__ LinearArgs a) {
  constexpr int T = 64, K = 16;
  __shared__ float xs[K][T + 4], ws[K][T + 4];
  u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  u32 row0 = blockIdx.y * T, out0 = blockIdx.x * T;
  float acc[4][4] = {};
  for (u32 k0 = 0; k0 < a.in; k0 += K) {
    for (u32 i = threadIdx.x; i < T * K; i += 256) {
      u32 r = i / K, k = i % K;
      bool inside = k0 + k < a.in;
      xs[k][r] = inside && row0 + r < a.rows ? element(a.x, (row0 + r) * a.xStride + k0 + k, a.xHalf) : 0.0f;
      ws[k][r] = inside && out0 + r < a.out ? element(a.w, (i64)(out0 + r) * a.in + k0 + k, a.wHalf) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; k++) {
      float x[4], w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = xs[k][ty * 4 + i], w[i] = ws[k][tx * 4 + i];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] += x[i] * w[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    u32 row = row0 + ty * 4 + i;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 out = out0 + tx * 4 + j;
      if (row >= a.rows || out >= a.out) continue;
      float v = activate(acc[i][j] + (a.bias != nullptr ? a.bias[out] : 0.0f), a.act);
      i64 at = row * a.dstStride + out;
      if (a.dstHalf) put((bf16*)a.dst + at, v);
      else put((float*)a.dst + at, v);
    }
  }
}

struct PartsArgs {
  bf16* dst;  // [rows, 3 * in]
  const void* x;
  i64 xStride;
  u32 rows, in, xHalf, pad;
};
static_assert(sizeof(PartsArgs) == 40, "PartsArgs is mirrored by partsArgs in linear.go");

// linear_parts cuts numbers into three bfloat16 that sum to them: 8 bits of mantissa each, cut off and not rounded, so that none
// overflows and what remains is exact. What is not finite is the first part alone.
extern "C" __global__ void __launch_bounds__(256) linear_parts(const __grid_constant__ PartsArgs a) {
  u32 c = blockIdx.x * 256 + threadIdx.x;
  if (c >= a.in) return;
  for (u32 r = blockIdx.y; r < a.rows; r += gridDim.y) {
    float x = element(a.x, r * a.xStride + c, a.xHalf);
    u16 part[3] = {};
    if ((__float_as_uint(x) & 0x7f800000u) == 0x7f800000u) {
      part[0] = (u16)(__float_as_uint(x) >> 16 | (x != x ? 0x40u : 0u));  // the bits that make it no number may be the lower ones
    } else {
#pragma unroll
      for (int i = 0; i < 3; i++) {
        u32 bits = __float_as_uint(x) & 0xffff0000u;
        part[i] = (u16)(bits >> 16);
        x -= __uint_as_float(bits);
      }
    }
#pragma unroll
    for (int i = 0; i < 3; i++) a.dst[((i64)r * 3 + i) * a.in + c].bits = part[i];
  }
}
