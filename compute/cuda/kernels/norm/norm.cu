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

// AddArgs is what addnorm does before: row = x + y*gate, which it keeps in sum.
struct AddArgs {
  const void* y;
  const float* gate;
  float* sum;
  i64 yStride, gateStride, sumStride;
  u32 rowsPerGate, pad;
};

// TurnArgs is what normrope does after: rotate the heads of a row, a token's, on their way to dst [heads, tokens, headDim].
struct TurnArgs {
  i64 dstHead;
  Divisor headDim;
  u32 pad;
  Turn turn;
};
static_assert(sizeof(AddArgs) == 56 && sizeof(TurnArgs) == 112, "mirrored by addArgs and turnArgs in norm.go");

__device__ __forceinline__ void close(Raw<8, float>& r, const float (&v)[8]) {
  r.a = make_float4(v[0], v[1], v[2], v[3]), r.b = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void close(Raw<1, float>& r, const float (&v)[1]) { r.v[0] = v[0]; }

// fetchRow brings a thread's part of a row.
template <int V, typename X>
__device__ __forceinline__ void fetchRow(Raw<V, X> (&raw)[HELD], const X* x, u32 width) {
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col < width) fetch(raw[i], x + col);
  }
}

// addRow makes raw the sum and stores it.
template <int V, typename Y>
__device__ __forceinline__ void addRow(Raw<V, float> (&raw)[HELD], const AddArgs& a, u32 row, u32 width) {
  Raw<V, Y> other[HELD];
  fetchRow<V, Y>(other, (const Y*)a.y + row * a.yStride, width);
  const float* gate = a.gate + (row / a.rowsPerGate) * a.gateStride;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= width) break;
    float v[V], y[V], g[V];
    open(v, raw[i]);
    open(y, other[i]);
    if (a.gate != nullptr) load<V>(g, gate + col);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] = a.gate != nullptr ? v[j] + y[j] * g[j] : v[j] + y[j];
    store<V>(a.sum + row * a.sumStride + col, v);
    close(raw[i], v);
  }
}

// Moments of a row, over all of its threads.
struct Moments {
  float mean, inv;
};

template <int V, typename X>
__device__ __forceinline__ Moments moments(const NormArgs& a, const Raw<V, X> (&raw)[HELD], u32 width) {
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
  return {mean, 1.0f / sqrtf(total(sum) / (float)a.width + a.eps)};
}

// normed is a chunk after everything.
template <int V>
__device__ __forceinline__ void normed(float (&v)[V], const NormArgs& a, const Moments& m, u32 row, u32 col) {
  float p[V];
#pragma unroll
  for (int j = 0; j < V; j++) v[j] = (v[j] - m.mean) * m.inv;
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
    load<V>(p, a.scale + (row / a.rowsPerScale) * a.scaleStride + col);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] *= 1.0f + p[j];
  }
  if (a.shift != nullptr) {
    load<V>(p, a.shift + (row / a.rowsPerShift) * a.shiftStride + col);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] += p[j];
  }
}

template <int V, typename D, typename X>
__device__ __forceinline__ void norm(const NormArgs& a) {
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  u32 width = row < a.rows ? a.width : 0;  // rows past the end take part in the barriers only
  Raw<V, X> raw[HELD];
  fetchRow<V, X>(raw, (const X*)a.x + row * a.xStride, width);
  Moments m = moments<V, X>(a, raw, width);
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= width) break;
    float v[V];
    open(v, raw[i]);
    normed<V>(v, a, m, row, col);
    store<V>((D*)a.dst + row * a.dstStride + col, v);
  }
}

template <int V, typename D, typename Y>
__device__ __forceinline__ void addnorm(const NormArgs& a, const AddArgs& add) {
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  u32 width = row < a.rows ? a.width : 0;
  Raw<V, float> raw[HELD];
  fetchRow<V, float>(raw, (const float*)a.x + row * a.xStride, width);
  addRow<V, Y>(raw, add, row, width);
  Moments m = moments<V, float>(a, raw, width);
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= width) break;
    float v[V];
    open(v, raw[i]);
    normed<V>(v, a, m, row, col);
    store<V>((D*)a.dst + row * a.dstStride + col, v);
  }
}

template <typename D, typename X>
__device__ __forceinline__ void normrope(const NormArgs& a, const TurnArgs& t) {
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  u32 width = row < a.rows ? a.width : 0;
  Raw<8, X> raw[HELD];
  fetchRow<8, X>(raw, (const X*)a.x + row * a.xStride, width);
  Angles at = {};
  if (width > 0) at = angles(t.turn, 0, row);
  Moments m = moments<8, X>(a, raw, width);
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= width) break;
    float v[8];
    open(v, raw[i]);
    normed<8>(v, a, m, row, col);
    u32 head = over(col, t.headDim), within = col - head * t.headDim.d;
    if (t.turn.posHead != 0) at = angles(t.turn, head, row);
    rotate<8>(v, t.turn, at, within / 2);
    store8((D*)a.dst + head * t.dstHead + row * a.dstStride + within, v);
  }
}

#define NORM(name, threads, D, X)                                                                 \
  extern "C" __global__ void __launch_bounds__(threads, 1) name(const __grid_constant__ NormArgs a) { \
    if (a.vec) norm<8, D, X>(a);                                                                  \
    else norm<1, D, X>(a);                                                                        \
  }

#define ADDNORM(name, D, Y)                                                                                     \
  extern "C" __global__ void __launch_bounds__(512) name(const __grid_constant__ NormArgs a, const __grid_constant__ AddArgs add) { \
    if (a.vec) addnorm<8, D, Y>(a, add);                                                                        \
    else addnorm<1, D, Y>(a, add);                                                                              \
  }
#define NORMROPE(name, D, X)                                                                                    \
  extern "C" __global__ void __launch_bounds__(512) name(const __grid_constant__ NormArgs a, const __grid_constant__ TurnArgs t) { \
    normrope<D, X>(a, t);                                                                                       \
  }

#if HELD < 8
ADDNORM(addnorm_ff, float, float)
ADDNORM(addnorm_fb, float, bf16)
ADDNORM(addnorm_bf, bf16, float)
ADDNORM(addnorm_bb, bf16, bf16)
NORMROPE(normrope_ff, float, float)
NORMROPE(normrope_fb, float, bf16)
NORMROPE(normrope_bf, bf16, float)
NORMROPE(normrope_bb, bf16, bf16)
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
