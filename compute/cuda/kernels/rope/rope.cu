// Rotation of adjacent pairs by three-dimensional positions, see README.md.
struct RopeArgs {
  void* dst;
  const void* x;
  i64 dstHead, dstToken, xHead, xToken;
  u32 heads, tokens, vec, pad;
  Turn turn;
};
static_assert(sizeof(RopeArgs) == 152, "RopeArgs is mirrored by ropeArgs in rope.go");

// Threads: x is the chunk of a head, y walks the heads, z the tokens of a block.
template <int V, typename D, typename X>
__device__ __forceinline__ void rope(const RopeArgs& a) {
  u32 token = blockIdx.x * blockDim.z + threadIdx.z, col = threadIdx.x * V;
  if (token >= a.tokens) return;
  Angles t;
  for (u32 head = threadIdx.y; head < a.heads; head += blockDim.y) {
    const X* x = (const X*)a.x + head * a.xHead + token * a.xToken + col;
    float v[V];  // on its way while the position and the tables are looked up
    if constexpr (V == 8) load8(v, x);
    else v[0] = widen(x[0]), v[1] = widen(x[1]);
    if (head == threadIdx.y || a.turn.posHead != 0) t = angles(a.turn, head, token);
    rotate<V>(v, a.turn, t, col / 2);
    D* dst = (D*)a.dst + head * a.dstHead + token * a.dstToken + col;
    if constexpr (V == 8) store8(dst, v);
    else put(dst, v[0]), put(dst + 1, v[1]);
  }
}

#define ROPE(name, D, X)                                                       \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ RopeArgs a) { \
    begin(); \
    if (a.vec) rope<8, D, X>(a);                                               \
    else rope<2, D, X>(a);                                                     \
  }

ROPE(rope_ff, float, float)
ROPE(rope_fb, float, bf16)
ROPE(rope_bf, bf16, float)
ROPE(rope_bb, bf16, bf16)
