// Two attentions over different keys made one, see README.md.
struct JoinArgs {
  void* dst;
  const void* more;
  float* sums;
  const float* moreSums;
  i64 dstHead, dstRow, sumHead;
  u32 queries, headDim, half, pad;
};
static_assert(sizeof(JoinArgs) == 72, "JoinArgs is mirrored by joinArgs in attendmore.go");

// join adds more [heads, queries, headDim] with sums moreSums [heads, queries] to dst. A warp has a query.
extern "C" __global__ void __launch_bounds__(256) join(const __grid_constant__ JoinArgs a) {
  begin();
  u32 q = blockIdx.x * 8 + threadIdx.x / 32, h = blockIdx.y, lane = threadIdx.x % 32;
  if (q >= a.queries) return;
  float* sum = a.sums + h * a.sumHead + q;
  float x = *sum, y = a.moreSums[(i64)h * a.queries + q], top = fmaxf(x, y);
  __syncwarp();
  if (y == __int_as_float(0xff800000)) return;  // nothing to add
  float u = expf(x - top), v = expf(y - top), all = u + v;
  u /= all, v /= all;
  i64 at = h * a.dstHead + q * a.dstRow, from = ((i64)h * a.queries + q) * a.headDim;
  for (u32 d = lane * 2; d < a.headDim; d += 64) {
    if (a.half) {
      u32 *to = (u32*)((bf16*)a.dst + at + d), w = *to, z = *(const u32*)((const bf16*)a.more + from + d);
      *to = pack2(u * __uint_as_float(w << 16) + v * __uint_as_float(z << 16), u * __uint_as_float(w & 0xffff0000u) + v * __uint_as_float(z & 0xffff0000u));
    } else {
      float *to = (float*)a.dst + at + d, *z = (float*)a.more + from + d;
      to[0] = u * to[0] + v * z[0], to[1] = u * to[1] + v * z[1];
    }
  }
  if (lane == 0) *sum = top + logf(all);
}
