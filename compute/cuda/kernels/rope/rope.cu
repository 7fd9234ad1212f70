// Rotation of adjacent pairs by three-dimensional positions, see README.md.
struct RopeArgs {
  void* dst;
  const void* x;
  const int* pos;
  const float2 *time, *row, *column;  // (cos, sin) tables [positions, pairs]
  u32* fault;
  i64 dstHead, dstToken, xHead, xToken, posHead, posToken;
  u32 heads, tokens, headDim;
  u32 timePairs, rowPairs, columnPairs;
  u32 times, rows, columns;  // positions in each table
  int minTime;
  u32 inverse, vec;
};
static_assert(sizeof(RopeArgs) == 152, "RopeArgs is mirrored by ropeArgs in rope.go");

// Threads: x is the chunk of a head, y walks the heads, z the tokens of a block.
template <int V, typename D, typename X>
__device__ __forceinline__ void rope(const RopeArgs& a) {
  u32 token = blockIdx.x * blockDim.z + threadIdx.z, col = threadIdx.x * V;
  if (token >= a.tokens) return;
  for (u32 head = threadIdx.y; head < a.heads; head += blockDim.y) {
    const X* x = (const X*)a.x + head * a.xHead + token * a.xToken + col;
    float v[V];  // on its way while the position and the tables are looked up
    if constexpr (V == 8) load8(v, x);
    else v[0] = widen(x[0]), v[1] = widen(x[1]);
    const int* pos = a.pos + head * a.posHead + token * a.posToken;
    const float2 *time = nullptr, *row = nullptr, *column = nullptr;
    bool outside = false;
    if (a.timePairs) {
      int p = max(pos[0], a.minTime) % (int)a.times;
      if (p < 0) p += a.times;
      time = a.time + (i64)p * a.timePairs;
    }
    if (a.rowPairs) {
      u32 p = (u32)pos[1];
      if (p >= a.rows) outside = true, p = 0;
      row = a.row + (i64)p * a.rowPairs;
    }
    if (a.columnPairs) {
      u32 p = (u32)pos[2];
      if (p >= a.columns) outside = true, p = 0;
      column = a.column + (i64)p * a.columnPairs;
    }
#pragma unroll
    for (int j = 0; j < V / 2; j++) {
      u32 pair = col / 2 + j;
      const float2* t;
      if (pair < a.timePairs) t = time + pair;
      else if (pair < a.timePairs + a.rowPairs) t = row + (pair - a.timePairs);
      else t = column + (pair - a.timePairs - a.rowPairs);
      float2 cs = *t;
      float s = a.inverse ? -cs.y : cs.y, p = v[2 * j], q = v[2 * j + 1];
      v[2 * j] = p * cs.x - q * s;
      v[2 * j + 1] = p * s + q * cs.x;
    }
    if (outside) *a.fault = FAULT_POSITION;
    D* dst = (D*)a.dst + head * a.dstHead + token * a.dstToken + col;
    if constexpr (V == 8) store8(dst, v);
    else put(dst, v[0]), put(dst + 1, v[1]);
  }
}

#define ROPE(name, D, X)                                                       \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ RopeArgs a) { \
    if (a.vec) rope<8, D, X>(a);                                               \
    else rope<2, D, X>(a);                                                     \
  }

ROPE(rope_ff, float, float)
ROPE(rope_fb, float, bf16)
ROPE(rope_bf, bf16, float)
ROPE(rope_bb, bf16, bf16)
