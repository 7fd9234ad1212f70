// Row normalisation with weight, bias and modulation, see README.md. HELD, the chunks that a thread keeps in registers, is
// defined by the launch side: 8 gives the kernels for wide rows, less those for ordinary ones.
struct NormArgs {
  void* dst;
  const void* x;
  const float *weight, *bias, *scale, *shift;
  i64 dstStride, xStride, scaleStride, shiftStride;
  u32 rows, width, rowsPerScale, rowsPerShift, rms, vec;
  float eps;
  u32 together;  // addnorm: rows of a thread, 2 where these share their parameters, else 1
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

// total sums R numbers over the threads of a row, blockDim.x of them (whole warps); blockDim.y rows share a block. The order is
// fixed, so the result does not depend on scheduling.
template <int R>
__device__ __forceinline__ void total(float (&s)[R]) {
  __shared__ float part[R][32];
#pragma unroll
  for (int m = 16; m > 0; m >>= 1)
#pragma unroll
    for (int r = 0; r < R; r++) s[r] += __shfl_xor_sync(0xffffffffu, s[r], m);
  if (blockDim.x > 32) {
    u32 warps = blockDim.x / 32, mine = threadIdx.y * warps;
    __syncthreads();
    if (threadIdx.x % 32 == 0)
#pragma unroll
      for (int r = 0; r < R; r++) part[r][mine + threadIdx.x / 32] = s[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < R; r++) s[r] = 0.0f;
    for (u32 w = 0; w < warps; w++)
#pragma unroll
      for (int r = 0; r < R; r++) s[r] += part[r][mine + w];
  }
}

// AddArgs is what addnorm does before: row = x + y*gate, which it keeps in sum.
struct AddArgs {
  const void* y;
  const float* gate;
  void* sum;
  i64 yStride, gateStride, sumStride;
  u8* coarse;    // addnorm_coarse: [rows, width], the result once more, in e4m3
  float* scale;  // [rows], what undoes it
  u32 rowsPerGate, pad;
};

// TurnArgs is what normrope does after: rotate the heads of a row, a token's, on their way to dst [heads, frames, tokens of one, headDim].
struct TurnArgs {
  i64 dstHead, dstFrame;
  Divisor headDim, frame;
  Turn turn;
};
static_assert(sizeof(AddArgs) == 72 && sizeof(TurnArgs) == 128, "mirrored by addArgs and turnArgs in norm.go");

__device__ __forceinline__ void close(Raw<8, float>& r, const float (&v)[8]) {
  r.a = make_float4(v[0], v[1], v[2], v[3]), r.b = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void close(Raw<1, float>& r, const float (&v)[1]) { r.v[0] = v[0]; }
__device__ __forceinline__ void close(Raw<8, bf16>& r, const float (&v)[8]) {
  r.a = make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}
__device__ __forceinline__ void close(Raw<1, bf16>& r, const float (&v)[1]) { put(&r.v[0], v[0]); }

// Rows are what a thread has of R rows, which share their parameters: chunk i of row r is raw[r][i].
template <int V, int R, typename X>
struct Rows {
  Raw<V, X> raw[R][HELD];
  u32 first, width;  // rows past the end have no width: they take part in the barriers only
};

template <int V, int R, typename X>
__device__ __forceinline__ void fetchRows(Rows<V, R, X>& t, const NormArgs& a, const void* x, i64 stride) {
  t.first = (blockIdx.x * blockDim.y + threadIdx.y) * R;
  t.width = t.first < a.rows ? a.width : 0;  // R divides the number of rows
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= t.width) break;
#pragma unroll
    for (int r = 0; r < R; r++) fetch(t.raw[r][i], (const X*)x + (t.first + r) * stride + col);
  }
}

// addRows makes the rows the sums and stores them.
template <int V, int R, typename X, typename Y>
__device__ __forceinline__ void addRows(Rows<V, R, X>& t, const NormArgs& n, const AddArgs& a) {
  Rows<V, R, Y> other;
  fetchRows<V, R, Y>(other, n, a.y, a.yStride);
  const float* gate = a.gate + (t.first / a.rowsPerGate) * a.gateStride;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= t.width) break;
    float v[V], y[V], g[V];
    if (a.gate != nullptr) load<V>(g, gate + col);
#pragma unroll
    for (int r = 0; r < R; r++) {
      open(v, t.raw[r][i]);
      open(y, other.raw[r][i]);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] = a.gate != nullptr ? v[j] + y[j] * g[j] : v[j] + y[j];
      store<V>((X*)a.sum + (t.first + r) * a.sumStride + col, v);
      close(t.raw[r][i], v);
    }
  }
}

// Moments of R rows, over all of their threads.
template <int R>
struct Moments {
  float mean[R], inv[R];
};

template <int V, int R, typename X>
__device__ __forceinline__ void moments(Moments<R>& m, const NormArgs& a, const Rows<V, R, X>& t) {
  float v[V], sum[R] = {};
#pragma unroll
  for (int r = 0; r < R; r++) m.mean[r] = 0.0f;
  if (!a.rms) {
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if ((threadIdx.x + i * blockDim.x) * V >= t.width) break;
#pragma unroll
      for (int r = 0; r < R; r++) {
        open(v, t.raw[r][i]);
#pragma unroll
        for (int j = 0; j < V; j++) m.mean[r] += v[j];
      }
    }
    total<R>(m.mean);
#pragma unroll
    for (int r = 0; r < R; r++) m.mean[r] /= (float)a.width;
  }
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    if ((threadIdx.x + i * blockDim.x) * V >= t.width) break;
#pragma unroll
    for (int r = 0; r < R; r++) {
      open(v, t.raw[r][i]);
#pragma unroll
      for (int j = 0; j < V; j++) sum[r] += (v[j] - m.mean[r]) * (v[j] - m.mean[r]);
    }
  }
  total<R>(sum);
#pragma unroll
  for (int r = 0; r < R; r++) m.inv[r] = 1.0f / sqrtf(sum[r] / (float)a.width + a.eps);
}

// normed makes v chunk i of the rows after everything.
template <int V, int R, typename X>
__device__ __forceinline__ void normed(float (&v)[R][V], const NormArgs& a, const Moments<R>& m, const Rows<V, R, X>& t, int i, u32 col) {
  float p[V];
#pragma unroll
  for (int r = 0; r < R; r++) {
    open(v[r], t.raw[r][i]);
#pragma unroll
    for (int j = 0; j < V; j++) v[r][j] = (v[r][j] - m.mean[r]) * m.inv[r];
  }
  if (a.weight != nullptr) {
    load<V>(p, a.weight + col);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int j = 0; j < V; j++) v[r][j] *= p[j];
  }
  if (a.bias != nullptr) {
    load<V>(p, a.bias + col);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int j = 0; j < V; j++) v[r][j] += p[j];
  }
  if (a.scale != nullptr) {
    load<V>(p, a.scale + (t.first / a.rowsPerScale) * a.scaleStride + col);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int j = 0; j < V; j++) v[r][j] *= 1.0f + p[j];
  }
  if (a.shift != nullptr) {
    load<V>(p, a.shift + (t.first / a.rowsPerShift) * a.shiftStride + col);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int j = 0; j < V; j++) v[r][j] += p[j];
  }
}

// finish normalises and stores the rows.
template <int V, int R, typename D, typename X>
__device__ __forceinline__ void finish(const NormArgs& a, const Rows<V, R, X>& t) {
  Moments<R> m;
  moments<V, R, X>(m, a, t);
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * V;
    if (col >= t.width) break;
    float v[R][V];
    normed<V, R, X>(v, a, m, t, i, col);
#pragma unroll
    for (int r = 0; r < R; r++) store<V>((D*)a.dst + (t.first + r) * a.dstStride + col, v[r]);
  }
}

template <int V, int R, typename D, typename X>
__device__ __forceinline__ void norm(const NormArgs& a) {
  Rows<V, R, X> t;
  fetchRows<V, R, X>(t, a, a.x, a.xStride);
  finish<V, R, D, X>(a, t);
}

template <int V, int R, typename D, typename X, typename Y>
__device__ __forceinline__ void addnorm(const NormArgs& a, const AddArgs& add) {
  Rows<V, R, X> t;
  fetchRows<V, R, X>(t, a, a.x, a.xStride);
  addRows<V, R, X, Y>(t, a, add);
  finish<V, R, D, X>(a, t);
}

// largest is the maximum of R numbers over the threads of a row, as total sums them.
template <int R>
__device__ __forceinline__ void largest(u32 (&s)[R]) {
  __shared__ u32 part[R][32];
#pragma unroll
  for (int m = 16; m > 0; m >>= 1)
#pragma unroll
    for (int r = 0; r < R; r++) s[r] = max(s[r], __shfl_xor_sync(0xffffffffu, s[r], m));
  if (blockDim.x > 32) {
    u32 warps = blockDim.x / 32, mine = threadIdx.y * warps;
    if (threadIdx.x % 32 == 0)
#pragma unroll
      for (int r = 0; r < R; r++) part[r][mine + threadIdx.x / 32] = s[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < R; r++)
      for (u32 w = 0; w < warps; w++) s[r] = max(s[r], part[r][mine + w]);
  }
}

// addnormCoarse is addnorm of bfloat16, and kernels/quant's rounding of its result by rows, or that alone if dst is null.
template <int R>
__device__ __forceinline__ void addnormCoarse(const NormArgs& a, const AddArgs& add) {
  Rows<8, R, bf16> t;
  fetchRows<8, R, bf16>(t, a, a.x, a.xStride);
  addRows<8, R, bf16, bf16>(t, a, add);
  Moments<R> m;
  moments<8, R, bf16>(m, a, t);
  u32 top[R] = {};
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= t.width) break;
    float v[R][8];
    normed<8, R, bf16>(v, a, m, t, i, col);
#pragma unroll
    for (int r = 0; r < R; r++) {
      close(t.raw[r][i], v[r]);  // rounded, in place of the sum
      if (a.dst != nullptr) *(uint4*)((bf16*)a.dst + (t.first + r) * a.dstStride + col) = t.raw[r][i].a;
      open(v[r], t.raw[r][i]);
#pragma unroll
      for (int j = 0; j < 8; j++) top[r] = max(top[r], __float_as_uint(v[r][j]) & 0x7fffffffu);
    }
  }
  largest<R>(top);
#pragma unroll
  for (int r = 0; r < R; r++) {
    float most = __uint_as_float(top[r]), inv = top[r] == 0 ? 0.0f : 448.0f / most;
    if (threadIdx.x == 0 && t.width > 0) add.scale[t.first + r] = top[r] == 0 ? 1.0f : most / 448.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      u32 col = (threadIdx.x + i * blockDim.x) * 8;
      if (col >= t.width) break;
      float v[8];
      open(v, t.raw[r][i]);
      *(uint2*)(add.coarse + (i64)(t.first + r) * a.width + col) = make_uint2(pack4(v[0] * inv, v[1] * inv, v[2] * inv, v[3] * inv),
                                                                            pack4(v[4] * inv, v[5] * inv, v[6] * inv, v[7] * inv));
    }
  }
}

template <int R, typename D, typename X>
__device__ __forceinline__ void normrope(const NormArgs& a, const TurnArgs& turns) {
  Rows<8, R, X> t;
  fetchRows<8, R, X>(t, a, a.x, a.xStride);
  Angles at[R] = {};
  if (t.width > 0)
#pragma unroll
    for (int r = 0; r < R; r++) at[r] = angles(turns.turn, 0, t.first + r);
  Moments<R> m;
  moments<8, R, X>(m, a, t);
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= t.width) break;
    float v[R][8];
    normed<8, R, X>(v, a, m, t, i, col);
    u32 head = over(col, turns.headDim), within = col - head * turns.headDim.d;
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (turns.turn.posHead != 0) at[r] = angles(turns.turn, head, t.first + r);
      rotate<8>(v[r], turns.turn, at[r], within / 2);
      u32 frame = over(t.first + r, turns.frame), token = t.first + r - frame * turns.frame.d;
      store8((D*)a.dst + head * turns.dstHead + frame * turns.dstFrame + token * a.dstStride + within, v[r]);
    }
  }
}

// normropeAlike is normrope where all chunks of a thread lie at one place of their heads and a token's heads turn alike: its turns are asked for
// once, while the row is on its way.
template <typename D, typename X>
__device__ __forceinline__ void normropeAlike(const NormArgs& a, const TurnArgs& turns) {
  Rows<8, 1, X> t;
  fetchRows<8, 1, X>(t, a, a.x, a.xStride);
  u32 place = threadIdx.x * 8, within = place - over(place, turns.headDim) * turns.headDim.d;
  float2 cs[4] = {};
  if (t.width > 0) turnsOf<8>(cs, turns.turn, angles(turns.turn, 0, t.first), within / 2);
  Moments<1> m;
  moments<8, 1, X>(m, a, t);
  u32 frame = over(t.first, turns.frame), token = t.first - frame * turns.frame.d;
  D* dst = (D*)a.dst + frame * turns.dstFrame + token * a.dstStride + within;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    u32 col = (threadIdx.x + i * blockDim.x) * 8;
    if (col >= t.width) break;
    float v[1][8];
    normed<8, 1, X>(v, a, m, t, i, col);
    rotateBy<8>(v[0], cs);
    store8(dst + over(col, turns.headDim) * turns.dstHead, v[0]);
  }
}

#define NORM(name, threads, D, X)                                                                 \
  extern "C" __global__ void __launch_bounds__(threads, 1) name(const __grid_constant__ NormArgs a) { \
    begin(); \
    if (a.vec) norm<8, 1, D, X>(a);                                                               \
    else norm<1, 1, D, X>(a);                                                                      \
  }

#define ADDNORM(name, D, X, Y)                                                                                     \
  extern "C" __global__ void __launch_bounds__(512) name(const __grid_constant__ NormArgs a, const __grid_constant__ AddArgs add) { \
    begin(); \
    if (a.together == 2) addnorm<8, 2, D, X, Y>(a, add);                                                        \
    else if (a.vec) addnorm<8, 1, D, X, Y>(a, add);                                                                \
    else addnorm<1, 1, D, X, Y>(a, add);                                                                             \
  }
#define NORMROPE(name, alike, D, X)                                                                                    \
  extern "C" __global__ void __launch_bounds__(512, 1) name(const __grid_constant__ NormArgs a, const __grid_constant__ TurnArgs t) { \
    begin(); \
    normrope<1, D, X>(a, t);                                                                                         \
  } \
  extern "C" __global__ void __launch_bounds__(512, 1) alike(const __grid_constant__ NormArgs a, const __grid_constant__ TurnArgs t) { \
    begin(); \
    normropeAlike<D, X>(a, t);                                                                                         \
  }

#if HELD < 8
ADDNORM(addnorm_ff, float, float, float)
ADDNORM(addnorm_fb, float, float, bf16)
ADDNORM(addnorm_bf, bf16, float, float)
ADDNORM(addnorm_bb, bf16, float, bf16)
ADDNORM(addnorm_half, bf16, bf16, bf16)
extern "C" __global__ void __launch_bounds__(512, 1) addnorm_coarse(const __grid_constant__ NormArgs a, const __grid_constant__ AddArgs add) {
  begin();
  if (a.together == 2) addnormCoarse<2>(a, add);
  else addnormCoarse<1>(a, add);
}
NORMROPE(normrope_ff, normrope_ff_alike, float, float)
NORMROPE(normrope_fb, normrope_fb_alike, float, bf16)
NORMROPE(normrope_bf, normrope_bf_alike, bf16, float)
NORMROPE(normrope_bb, normrope_bb_alike, bf16, bf16)
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
