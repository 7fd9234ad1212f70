// Standard normal numbers, bit for bit those of compute.FillNoise, see README.md. Every double operation is written with its
// rounding intrinsic in FillNoise's order: the compiler may neither fuse nor reorder these.
struct NoiseArgs {
  void* dst;
  u64 count;
  u64 seed;
  u32 chunk, step;
};
static_assert(sizeof(NoiseArgs) == 32, "NoiseArgs is mirrored by noiseArgs in noise.go");

#define ADD __dadd_rn
#define SUB(x, y) __dadd_rn(x, -(y))
#define MUL __dmul_rn
#define DIV __ddiv_rn

__device__ __forceinline__ double logUniform(double x) {
  u64 u = (u64)__double_as_longlong(x);
  int e = (int)(u >> 52) - 1022;
  double m = __longlong_as_double((i64)((u & ((1ull << 52) - 1)) | (1022ull << 52)));
  if (m < 0.7071067811865476) {
    m = MUL(m, 2.0);
    e--;
  }
  double f = DIV(SUB(m, 1.0), ADD(m, 1.0)), s = MUL(f, f), p = 1.0 / 21;
  const double c[10] = {1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0};
#pragma unroll
  for (int i = 0; i < 10; i++) p = ADD(MUL(p, s), c[i]);
  return ADD(MUL((double)e, 0.6931471805599453), MUL(2.0, MUL(f, p)));
}

__device__ __forceinline__ void sinCosTurn(double x, double* sine, double* cosine) {
  double y = MUL(4.0, x), q = floor(ADD(y, 0.5));
  double a = MUL(SUB(y, q), 1.5707963267948966), z = MUL(a, a);
  const double sc[7] = {1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0};
  const double cc[8] = {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0,
                        -1.0 / 720.0, 1.0 / 24.0, -1.0 / 2.0, 1.0};
  double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
#pragma unroll
  for (int i = 0; i < 7; i++) s = ADD(MUL(s, z), sc[i]);
  s = MUL(s, a);
#pragma unroll
  for (int i = 0; i < 8; i++) c = ADD(MUL(c, z), cc[i]);
  switch ((int)q & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
  }
}

__device__ __forceinline__ void boxMuller(u32 u, u32 v, float* a, float* b) {
  double r = __dsqrt_rn(MUL(-2.0, logUniform(MUL(ADD((double)u, 0.5), 1.0 / 4294967296.0)))), s, c;
  sinCosTurn(MUL((double)v, 1.0 / 4294967296.0), &s, &c);
  *a = __double2float_rn(MUL(r, c));
  *b = __double2float_rn(MUL(r, s));
}

template <typename D>
__device__ __forceinline__ void noise(const NoiseArgs& a) {
  u64 n = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (4 * n >= a.count) return;
  u32 c0 = (u32)n, c1 = (u32)(n >> 32), c2 = a.chunk, c3 = a.step, k0 = (u32)a.seed, k1 = (u32)(a.seed >> 32);
#pragma unroll
  for (int i = 0; i < 10; i++) {
    u32 h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  float v[4];
  boxMuller(c0, c1, v, v + 1);
  boxMuller(c2, c3, v + 2, v + 3);
  D* dst = (D*)a.dst;
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (4 * n + i < a.count) put(dst + 4 * n + i, v[i]);
}

extern "C" __global__ void __launch_bounds__(256) noise_f(const __grid_constant__ NoiseArgs a) { begin(), noise<float>(a); }
extern "C" __global__ void __launch_bounds__(256) noise_b(const __grid_constant__ NoiseArgs a) { begin(), noise<bf16>(a); }
