// Numbers to bytes, with the arithmetic of a host that computes in double, see README.md.
struct PixelsArgs {
  u8* dst;
  const float* x;
  u32* bad;
  double scale, shift;
  u32 count, pad;
};
static_assert(sizeof(PixelsArgs) == 48, "PixelsArgs is mirrored by pixelsArgs in image.go");

__device__ __forceinline__ u32 byteOf(float x, const PixelsArgs& a, u32& bad) {
  double v = __dadd_rn(__dmul_rn((double)x, a.scale), a.shift);
  if (v != v) bad++;
  return (u32)__double2int_rn(fmin(fmax(v, 0.0), 255.0));  // fmax takes 0 for NaN
}

// A thread makes four bytes.
extern "C" __global__ void __launch_bounds__(256) pixels(const __grid_constant__ PixelsArgs a) {
  begin();
  u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * 4, bad = 0;
  if (i >= a.count) return;
  if (i + 4 <= a.count) {
    float4 v = *(const float4*)(a.x + i);
    *(u32*)(a.dst + i) = byteOf(v.x, a, bad) | byteOf(v.y, a, bad) << 8 | byteOf(v.z, a, bad) << 16 | byteOf(v.w, a, bad) << 24;
  } else {
    for (u32 j = i; j < a.count; j++) a.dst[j] = (u8)byteOf(a.x[j], a, bad);
  }
  if (bad) atomicAdd(a.bad, bad);
}
