// Row normalisation with weight, bias and modulation, see README.md. HELD, the chunks that a thread keeps in registers, is
// defined by the launch side: 8 gives the kernels for wide rows, less those for ordinary ones.
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

// Raw is a chunk as it lies in memory: a row waits in registers as bfloat16 if it came so.
template <int V, typename T>
struct Raw {
  T v[V];
};
template <>
struct Raw<8, float> {
  float4 a, b;
};
template <>
struct Raw<8, bf16> {
  uint4 a;
};

__device__ __forceinline__ void fetch(Raw<8, float>& r, const float* p) { r.a = ((const float4*)p)[0], r.b = ((const float4*)p)[1]; }
__device__ __forceinline__ void fetch(Raw<8, bf16>& r, const bf16* p) { r.a = *(const uint4*)p; }
template <typename T>
__device__ __forceinline__ void fetch(Raw<1, T>& r, const T* p) { r.v[0] = *p; }

__device__ __forceinline__ void open(float (&v)[8], const Raw<8, float>& r) {
  v[0] = r.a.x, v[1] = r.a.y, v[2] = r.a.z, v[3] = r.a.w, v[4] = r.b.x, v[5] = r.b.y, v[6] = r.b.z, v[7] = r.b.w;
}
__device__ __forceinline__ void open(float (&v)[8], const Raw<8, bf16>& r) {
  u32 w[4] = {r.a.x, r.a.y, r.a.z, r.a.w};
#pragma unroll
  for (int i = 0; i < 4; i++) v[2 * i] = __uint_as_float(w[i] << 16), v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
}
template <typename T>
__device__ __forceinline__ void open(float (&v)[1], const Raw<1, T>& r) { v[0] = widen(r.v[0]); }

// total sums over the threads of a row, blockDim.x of them (whole warps); blockDim.y rows share a block. The order is fixed,
// so the result does not depend on scheduling.
__device__ __forceinline__ float total(float s) {
  __shared__ float part[32];
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) s += __shfl_xor_sync(0xffffffffu, s, m);
  if (blockDim.x > 32) {
    u32 warps = blockDim.x / 32, mine = threadIdx.y * warps;
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[mine + threadIdx.x / 32] = s;
    __syncthreads();
    s = 0.0f;
    for (u32 w = 0; w < warps; w++) s += part[mine + w];
  }
  return s;
}

template <int V, typename D, typename X>
__device__ __forceinline__ void norm(const NormArgs& a) {
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  u32 width = row < a.rows ? a.width : 0;  // rows past the end take part in the barriers only
  const X* x = (const X*)a.x + row * a.xStride;
  Raw<V, X> raw[HELD];
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col < width) fetch(raw[i], x + col);
  }
  float mean = 0.0f, sum = 0.0f, v[V];
  if (!a.rms) {
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if ((threadIdx.x + i * blockDim.x) * V >= width) break;
      open(v, raw[i]);
#pragma unroll
      for (int j = 0; j < V; j++) mean += v[j];
    }
    mean = total(mean) / (float)a.width;
  }
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    if ((threadIdx.x + i * blockDim.x) * V >= width) break;
    open(v, raw[i]);
#pragma unroll
    for (int j = 0; j < V; j++) sum += (v[j] - mean) * (v[j] - mean);
  }
  float inv = 1.0f / sqrtf(total(sum) / (float)a.width + a.eps);
  D* dst = (D*)a.dst + row * a.dstStride;
  const float* scale = a.scale + (row / a.rowsPerScale) * a.scaleStride;
  const float* shift = a.shift + (row / a.rowsPerShift) * a.shiftStride;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= width) break;
    open(v, raw[i]);
    float p[V];
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = (v[j] - mean) * inv;
    if (a.weight != nullptr) {
      load<V>(p, a.weight + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] *= p[j];
    }
    if (a.bias != nullptr) {
      load<V>(p, a.bias + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] += p[j];
    }
    if (a.scale != nullptr) {
      load<V>(p, scale + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] *= 1.0f + p[j];
    }
    if (a.shift != nullptr) {
      load<V>(p, shift + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] += p[j];
    }
    store<V>(dst + col, v);
  }
}

#define NORM(name, threads, D, X)                                                                 \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ NormArgs a) { \
    if (a.vec) norm<8, D, X>(a);                                                                  \
    else norm<1, D, X>(a);                                                                        \
  }

#if HELD < 8
NORM(norm_ff, 256, float, float)
NORM(norm_fb, 256, float, bf16)
NORM(norm_bf, 256, bf16, float)
NORM(norm_bb, 256, bf16, bf16)
#else
NORM(norm_wide_ff, 512, float, float)
NORM(norm_wide_fb, 512, float, bf16)
NORM(norm_wide_bf, 512, bf16, float)
NORM(norm_wide_bb, 512, bf16, bf16)
#endif
