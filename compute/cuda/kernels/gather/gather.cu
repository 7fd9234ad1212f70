// Table rows by index, see README.md.
struct GatherArgs {
  void* dst;
  const float* table;
  const int* index;
  u32* fault;
  i64 dstStride, tableStride;
  u32 rows, width, entries, accumulate, vec, pad;
};
static_assert(sizeof(GatherArgs) == 72, "GatherArgs is mirrored by gatherArgs in gather.go");

template <int V, typename D>
__device__ __forceinline__ void gather(const GatherArgs& a) {
  u32 row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  u32 i = (u32)a.index[row];
  if (i >= a.entries) {
    *a.fault = FAULT_INDEX;
    return;
  }
  const float* src = a.table + i * a.tableStride;
  D* dst = (D*)a.dst + row * a.dstStride;
  for (u32 col = threadIdx.x * V; col < a.width; col += blockDim.x * V) {
    float v[V], old[V];
    load<V>(v, src + col);
    if (a.accumulate) {
      load<V>(old, (const D*)dst + col);
#pragma unroll
      for (int j = 0; j < V; j++) v[j] += old[j];
    }
    store<V>(dst + col, v);
  }
}

extern "C" __global__ void __launch_bounds__(256) gather_f(const __grid_constant__ GatherArgs a) {
  begin();
  if (a.vec) gather<8, float>(a);
  else gather<1, float>(a);
}

extern "C" __global__ void __launch_bounds__(256) gather_b(const __grid_constant__ GatherArgs a) {
  begin();
  if (a.vec) gather<8, bf16>(a);
  else gather<1, bf16>(a);
}
