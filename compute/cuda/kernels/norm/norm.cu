// Row normalisation with weight, bias and modulation, see README.md.
struct NormArgs {
  void* dst;
  const void* x;
  const float *weight, *bias, *scale, *shift;
  i64 dstStride, xStride, scaleStride, shiftStride;
  u32 rows, width, rowsPerScale, rowsPerShift, rms, vec;
  float eps;
  u32 pad;
};
static_assert(sizeof(NormArgs) == 112, "NormArgs is mirrored by normArgs in norm.go");

// total sums over the threads of a row: one warp (blockDim.x == 32, several rows a block) or the whole block. The order is
// fixed, so the result does not depend on scheduling.
__device__ __forceinline__ float total(float s) {
  __shared__ float part[32];
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) s += __shfl_xor_sync(0xffffffffu, s, m);
  if (blockDim.x > 32) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    s = 0.0f;
    for (u32 w = 0; w < blockDim.x / 32; w++) s += part[w];
  }
  return s;
}

template <int V, typename D, typename X>
__device__ __forceinline__ void norm(const NormArgs& a) {
  constexpr int N = 8;  // chunks that a thread keeps in registers
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;  // a whole warp, or the whole block
  const X* x = (const X*)a.x + row * a.xStride;
  D* dst = (D*)a.dst + row * a.dstStride;
  float v[N][V];
#pragma unroll
  for (int i = 0; i < N; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col < a.width) load<V>(v[i], x + col);
  }
  float mean = 0.0f, sum = 0.0f;
  if (!a.rms) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      if ((threadIdx.x + i * blockDim.x) * V >= a.width) continue;
#pragma unroll
      for (int j = 0; j < V; j++) mean += v[i][j];
    }
    mean = total(mean) / (float)a.width;
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    if ((threadIdx.x + i * blockDim.x) * V >= a.width) continue;
#pragma unroll
    for (int j = 0; j < V; j++) {
      v[i][j] -= mean;
      sum += v[i][j] * v[i][j];
    }
  }
  float inv = 1.0f / sqrtf(total(sum) / (float)a.width + a.eps);
  u32 scaleRow = row / a.rowsPerScale, shiftRow = row / a.rowsPerShift;
#pragma unroll
  for (int i = 0; i < N; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= a.width) continue;
    float p[V];
#pragma unroll
    for (int j = 0; j < V; j++) v[i][j] *= inv;
    if (a.weight != nullptr) {
      load<V>(p, a.weight + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[i][j] *= p[j];
    }
    if (a.bias != nullptr) {
      load<V>(p, a.bias + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[i][j] += p[j];
    }
    if (a.scale != nullptr) {
      load<V>(p, a.scale + scaleRow * a.scaleStride + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[i][j] *= 1.0f + p[j];
    }
    if (a.shift != nullptr) {
      load<V>(p, a.shift + shiftRow * a.shiftStride + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[i][j] += p[j];
    }
    store<V>(dst + col, v[i]);
  }
}

#define NORM(name, threads, D, X)                                                    \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ NormArgs a) { \
    if (a.vec) norm<8, D, X>(a);                                                     \
    else norm<1, D, X>(a);                                                           \
  }

NORM(norm_ff, 128, float, float)
NORM(norm_fb, 128, float, bf16)
NORM(norm_bf, 128, bf16, float)
NORM(norm_bb, 128, bf16, bf16)
NORM(norm_wide_ff, 512, float, float)
NORM(norm_wide_fb, 512, float, bf16)
NORM(norm_wide_bf, 512, bf16, float)
NORM(norm_wide_bb, 512, bf16, bf16)
