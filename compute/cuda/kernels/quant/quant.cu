// Rounding to e4m3 with a scale for each row, or one for all, see README.md.
struct QuantArgs {
  u8* dst;
  const void* x;
  float* scale;      // [rows], or [1] with top
  const u32* top;    // bits of the largest magnitude of all; null: of the row
  u32* found;        // amax: where it is raised
  const bf16* bias;  // [width], or null; it is added before
  i64 xStride, dstStride;
  u32 rows, width, vec, act;
};
static_assert(sizeof(QuantArgs) == 80, "QuantArgs is mirrored by quantArgs in fp8.go");

#define MOST 448.0f  // the largest e4m3
#define HELD 5       // chunks of 8 that a thread keeps

// largest over the block, of numbers that are not negative. NaN counts as infinite.
__device__ __forceinline__ u32 largest(u32 v) {
  __shared__ u32 part[32];
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) v = max(v, __shfl_xor_sync(0xffffffffu, v, m));
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  v = part[0];
  for (u32 w = 1; w < blockDim.x / 32; w++) v = max(v, part[w]);
  return v;
}

template <typename X>
__device__ __forceinline__ u32 magnitude(const float (&v)[8]) {
  u32 m = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) m = max(m, __float_as_uint(v[j]) & 0x7fffffffu);
  return m;
}

// gelu is GELU (tanh) of 8 numbers with the tanh in half precision: off by less than 0.0005 of a number, where e4m3 rounds by up to 0.06.
// Half the instructions of activate's exponential, and a fourth of its turns at the special function unit.
__device__ __forceinline__ void gelu(float (&v)[8]) {
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    u32 x, t, u;
    u16 lo, hi;
    float a, b, p = 0.5f * v[j], q = 0.5f * v[j + 1];
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(v[j + 1]), "f"(v[j]));
    asm("mul.f16x2 %0, %1, %1;" : "=r"(t) : "r"(x));
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(u) : "r"(t), "r"(0x28912891u), "r"(0x3a623a62u));  // 0.0356774 x^2 + 0.797885
    asm("mul.f16x2 %0, %1, %2;" : "=r"(t) : "r"(u), "r"(x));
    asm("tanh.approx.f16x2 %0, %1;" : "=r"(u) : "r"(t));
    asm("mov.b32 {%0, %1}, %2;" : "=h"(lo), "=h"(hi) : "r"(u));
    asm("cvt.f32.f16 %0, %1;" : "=f"(a) : "h"(lo));
    asm("cvt.f32.f16 %0, %1;" : "=f"(b) : "h"(hi));
    v[j] = p * a + p, v[j + 1] = q * b + q;
  }
}

// A block takes a row, adds a bias and activates where there is one. Width is a multiple of 16, rows may be read 16 bytes at a time, and blockDim.x * HELD * 8 covers one.
template <typename X>
__device__ __forceinline__ void quant(const QuantArgs& a) {
  const X* x = (const X*)a.x + blockIdx.x * a.xStride;
  float v[HELD][8];
  u32 top = 0;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col < a.width) load8(v[i], x + col);
  }
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= a.width) break;
    if (a.bias != nullptr) {
      float b[8];
      load8(b, a.bias + col);
#pragma unroll
      for (int j = 0; j < 8; j++) v[i][j] += b[j];
      if (a.act == 1) gelu(v[i]);
      else
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = activate(v[i][j], a.act);
    }
    top = max(top, magnitude<X>(v[i]));
  }
  top = a.top != nullptr ? *a.top : largest(top);
  float most = __uint_as_float(top), inv = top == 0 ? 0.0f : MOST / most;
  if (threadIdx.x == 0 && (a.top == nullptr || blockIdx.x == 0)) a.scale[blockIdx.x] = top == 0 ? 1.0f : most / MOST;
  u8* dst = a.dst + blockIdx.x * a.dstStride;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= a.width) break;
    *(uint2*)(dst + col) = make_uint2(pack4(v[i][0] * inv, v[i][1] * inv, v[i][2] * inv, v[i][3] * inv),
                                      pack4(v[i][4] * inv, v[i][5] * inv, v[i][6] * inv, v[i][7] * inv));
  }
}

// amax raises *found, which is 0 before, to the bits of the largest magnitude.
template <typename X>
__device__ __forceinline__ void amax(const QuantArgs& a) {
  u32 top = 0;
  for (u32 row = blockIdx.x; row < a.rows; row += gridDim.x)
    for (u32 col = threadIdx.x * 8; col < a.width; col += blockDim.x * 8) {
      float v[8];
      load8(v, (const X*)a.x + row * a.xStride + col);
      top = max(top, magnitude<X>(v));
    }
  top = largest(top);
  if (threadIdx.x == 0) atomicMax(a.found, top);
}

extern "C" __global__ void __launch_bounds__(512) quant_f(const __grid_constant__ QuantArgs a) { begin(), quant<float>(a); }
extern "C" __global__ void __launch_bounds__(512) quant_b(const __grid_constant__ QuantArgs a) { begin(), quant<bf16>(a); }
extern "C" __global__ void __launch_bounds__(512) quant_amax_f(const __grid_constant__ QuantArgs a) { begin(), amax<float>(a); }
extern "C" __global__ void __launch_bounds__(512) quant_amax_b(const __grid_constant__ QuantArgs a) { begin(), amax<bf16>(a); }
