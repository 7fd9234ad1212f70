// Sinusoids of timesteps, see README.md.
struct TimeEmbedArgs {
  void* dst;
  const float* t;
  i64 dstStride, tStride;
  double maxPeriod;
  u32 rows, half;
};
static_assert(sizeof(TimeEmbedArgs) == 48, "TimeEmbedArgs is mirrored by timeEmbedArgs in timeembed.go");

template <typename D>
__device__ __forceinline__ void timeembed(const TimeEmbedArgs& a) {
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.half) return;
  u32 row = i / a.half, j = i % a.half;
  double angle = (double)a.t[row * a.tStride] * pow(a.maxPeriod, -(double)j / (double)a.half), s, c;
  sincos(angle, &s, &c);
  D* dst = (D*)a.dst + row * a.dstStride;
  put(dst + j, (float)c);
  put(dst + a.half + j, (float)s);
}

extern "C" __global__ void timeembed_f(const __grid_constant__ TimeEmbedArgs a) { begin(), timeembed<float>(a); }
extern "C" __global__ void timeembed_b(const __grid_constant__ TimeEmbedArgs a) { begin(), timeembed<bf16>(a); }
