// Elementwise operations on views of up to four dimensions, see README.md.
struct MapArgs {
  void* dst;
  const void* x;
  const void* y;       // Mix, AddGated
  const float* param;  // AddGated: gate [groups, width]; BIAS: [width]
  i64 dstStride[3], xStride[3], yStride[3];
  i64 paramStride;
  Divisor rowChunks;     // chunks in a row
  Divisor n1, n2;        // lengths of the second and third outer dimension
  Divisor rowsPerGroup;
  u32 chunks;            // in all
  u32 op, act, vec;
  float a, b;
};
static_assert(sizeof(MapArgs) == 184, "MapArgs is mirrored by mapArgs in map.go");

enum { ACTIVATE, MIX, CLAMP, ADDGATED, BIAS, SQUASH };

// Place is where a chunk's row lies in the three outer dimensions.
struct Place {
  u32 i0, i1, i2;
};

__device__ __forceinline__ Place place(const MapArgs& a, u32 row) {
  if (a.n1.d * a.n2.d == 1) return {row, 0, 0};
  u32 t = over(row, a.n2), i0 = over(t, a.n1);
  return {i0, t - i0 * a.n1.d, row - t * a.n2.d};
}

__device__ __forceinline__ i64 offset(const Place& p, const i64 (&stride)[3]) {
  return p.i0 * stride[0] + p.i1 * stride[1] + p.i2 * stride[2];
}

template <int V>
__device__ __forceinline__ void apply(const MapArgs& a, float (&x)[V], const float (&y)[V], const float* param) {
  if (a.op == MIX) {
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = a.a * x[j] + a.b * y[j];
  } else if (a.op == ADDGATED) {
    float g[V];
    if (param != nullptr) load<V>(g, param);
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = param != nullptr ? x[j] + y[j] * g[j] : x[j] + y[j];
  }
}

template <int V>
__device__ __forceinline__ void apply(const MapArgs& a, float (&x)[V], const float* param) {
  if (a.op == MIX) {
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = a.a * x[j];
  } else if (a.op == CLAMP) {
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = x[j] < a.a ? a.a : (x[j] > a.b ? a.b : x[j]);
  } else if (a.op == SQUASH) {
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = a.a * tanhf(x[j] / a.a);
  } else {
    if (param != nullptr) {
      float g[V];
      load<V>(g, param);
#pragma unroll
      for (int j = 0; j < V; j++) x[j] += g[j];
    }
    if (a.act != 0) {
#pragma unroll
      for (int j = 0; j < V; j++) x[j] = activate(x[j], a.act);
    }
  }
}

// Each thread takes U chunks a block apart and loads them all before it stores any: enough bytes in flight for HBM.
template <int V, int U, bool TWO, typename D, typename X, typename Y>
__device__ __forceinline__ void map(const MapArgs& a) {
  float x[U][V], y[U][V];
  u32 first = blockIdx.x * (blockDim.x * U) + threadIdx.x;
#pragma unroll
  for (int u = 0; u < U; u++) {
    u32 c = first + u * blockDim.x;
    if (c >= a.chunks) break;
    u32 row = over(c, a.rowChunks), col = (c - row * a.rowChunks.d) * V;
    Place p = place(a, row);
    load<V>(x[u], (const X*)a.x + offset(p, a.xStride) + col);
    if (TWO) load<V>(y[u], (const Y*)a.y + offset(p, a.yStride) + col);
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    u32 c = first + u * blockDim.x;
    if (c >= a.chunks) break;
    u32 row = over(c, a.rowChunks), col = (c - row * a.rowChunks.d) * V;
    const float* param = a.param == nullptr ? nullptr : a.param + over(row, a.rowsPerGroup) * a.paramStride + col;
    if (TWO) apply<V>(a, x[u], y[u], param);
    else apply<V>(a, x[u], param);
    store<V>((D*)a.dst + offset(place(a, row), a.dstStride) + col, x[u]);
  }
}

#define MAP1(name, D, X)                                                                      \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ MapArgs a) { \
    begin(); \
    if (a.vec) map<8, UNROLL1, false, D, X, float>(a);                                        \
    else map<1, UNROLL1, false, D, X, float>(a);                                              \
  }
#define MAP2(name, D, X, Y)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ MapArgs a) { \
    begin(); \
    if (a.vec) map<8, UNROLL2, true, D, X, Y>(a);                                             \
    else map<1, UNROLL2, true, D, X, Y>(a);                                                   \
  }

MAP1(map_ff, float, float)
MAP1(map_fb, float, bf16)
MAP1(map_bf, bf16, float)
MAP1(map_bb, bf16, bf16)
MAP2(map_fff, float, float, float)
MAP2(map_ffb, float, float, bf16)
MAP2(map_fbf, float, bf16, float)
MAP2(map_fbb, float, bf16, bf16)
MAP2(map_bff, bf16, float, float)
MAP2(map_bfb, bf16, float, bf16)
MAP2(map_bbf, bf16, bf16, float)
MAP2(map_bbb, bf16, bf16, bf16)
