// Elementwise operations on views of up to four dimensions, see README.md.
struct MapArgs {
  void* dst;
  const void* x;
  const void* y;       // Mix, AddGated
  const float* param;  // AddGated: gate [groups, width]; BIAS: [width]
  i64 dstStride[3], xStride[3], yStride[3];
  i64 paramStride;
  u32 chunks, rowChunks;  // chunks in all, chunks in a row
  u32 n1, n2;             // lengths of the second and third outer dimension
  u32 rowsPerGroup;
  u32 op, act, vec;
  float a, b;
};
static_assert(sizeof(MapArgs) == 152, "MapArgs is mirrored by mapArgs in map.go");

enum { ACTIVATE, MIX, CLAMP, ADDGATED, BIAS };

__device__ __forceinline__ i64 rowOffset(const MapArgs& a, u32 row, const i64 (&stride)[3]) {
  if (a.n1 * a.n2 == 1) return row * stride[0];
  u32 t = row / a.n2;
  return (t / a.n1) * stride[0] + (t % a.n1) * stride[1] + (row % a.n2) * stride[2];
}

template <int V>
__device__ __forceinline__ void apply(const MapArgs& a, float (&x)[V], const float (&y)[V], const float* param) {
  if (a.op == MIX) {
    if (a.y == nullptr) {
#pragma unroll
      for (int j = 0; j < V; j++) x[j] = a.a * x[j];
    } else {
#pragma unroll
      for (int j = 0; j < V; j++) x[j] = a.a * x[j] + a.b * y[j];
    }
  } else if (a.op == CLAMP) {
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = x[j] < a.a ? a.a : (x[j] > a.b ? a.b : x[j]);
  } else if (a.op == ADDGATED) {
    float g[V];
    if (param != nullptr) load<V>(g, param);
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = param != nullptr ? x[j] + y[j] * g[j] : x[j] + y[j];
  } else {
    if (a.op == BIAS && param != nullptr) {
      float g[V];
      load<V>(g, param);
#pragma unroll
      for (int j = 0; j < V; j++) x[j] += g[j];
    }
#pragma unroll
    for (int j = 0; j < V; j++) x[j] = activate(x[j], a.act);
  }
}

// Each thread takes U chunks a block apart and loads them all before it stores any: enough bytes in flight for HBM.
template <int V, typename D, typename X, typename Y>
__device__ __forceinline__ void map(const MapArgs& a) {
  constexpr int U = 2;
  float x[U][V], y[U][V];
  D* dst[U];
  const float* param[U];
  u32 first = blockIdx.x * (blockDim.x * U) + threadIdx.x;
#pragma unroll
  for (int u = 0; u < U; u++) {
    u32 c = first + u * blockDim.x;
    dst[u] = nullptr;
    param[u] = nullptr;
    if (c >= a.chunks) continue;
    u32 row = c / a.rowChunks, col = (c - row * a.rowChunks) * V;
    load<V>(x[u], (const X*)a.x + rowOffset(a, row, a.xStride) + col);
    if (a.y != nullptr) load<V>(y[u], (const Y*)a.y + rowOffset(a, row, a.yStride) + col);
    dst[u] = (D*)a.dst + rowOffset(a, row, a.dstStride) + col;
    if (a.param != nullptr) param[u] = a.param + (row / a.rowsPerGroup) * a.paramStride + col;
  }
#pragma unroll
  for (int u = 0; u < U; u++) {
    if (dst[u] == nullptr) continue;
    apply<V>(a, x[u], y[u], param[u]);
    store<V>(dst[u], x[u]);
  }
}

#define MAP(name, D, X, Y)                                                      \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ MapArgs a) { \
    if (a.vec) map<8, D, X, Y>(a);                                              \
    else map<1, D, X, Y>(a);                                                    \
  }

MAP(map_fff, float, float, float)
MAP(map_ffb, float, float, bf16)
MAP(map_fbf, float, bf16, float)
MAP(map_fbb, float, bf16, bf16)
MAP(map_bff, bf16, float, float)
MAP(map_bfb, bf16, float, bf16)
MAP(map_bbf, bf16, bf16, float)
MAP(map_bbb, bf16, bf16, bf16)
