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

// What follows makes the same floats with a third of the double operations: to 2^-41, and where that lies within 2^-38 of the middle
// between two floats (one number in 16,000), boxMuller decides.
#define FMA __fma_rn
#define TURNS 1024

// Tables hold for the interval of a mantissa a reciprocal and twice its logarithm; multiples of -2 ln 2; sines and cosines of parts of a turn.
struct Tables {
  double2 log[256], turn[TURNS];
  double twos[34];
};
struct Table2 {
  double x, y;
};
struct Made {
  Table2 log[256], turn[TURNS];
  double twos[34];
};
__device__ constexpr double logOf(double m) {
  double f = (m - 1.0) / (m + 1.0), s = f * f, p = 0.0;
  for (int k = 27; k >= 1; k -= 2) p = p * s + 1.0 / k;
  return 2.0 * (f * p);
}
__device__ constexpr Made make() {
  Made t = {};
  for (int i = 0; i < 256; i++) {
    int j = (i + 106) & 255;  // intervals begin at 1 + 106/256
    double mid = (1.0 + (j + 0.5) / 256.0) * (j >= 106 ? 0.5 : 1.0), c = j == 255 ? 1.0 : 1.0 / mid;
    t.log[i].x = c, t.log[i].y = 2.0 * logOf(c);
  }
  for (int i = 0; i < 34; i++) t.twos[i] = (33 - i) * (2.0 * 0.6931471805599453);
  for (int i = 0; i < TURNS; i++) {
    int q = (i + TURNS / 8) / (TURNS / 4);
    double a = (i - TURNS / 4 * q) * (6.283185307179586 / TURNS), z = a * a, s = 0.0, c = 0.0;
    for (int k = 10; k >= 1; k--) s = 1.0 - s * z / ((2.0 * k) * (2.0 * k + 1.0)), c = 1.0 - c * z / ((2.0 * k) * (2.0 * k - 1.0));
    s *= a;
    q &= 3;
    t.turn[i].x = q == 0 ? s : q == 1 ? c : q == 2 ? -s : -c;
    t.turn[i].y = q == 0 ? c : q == 1 ? -s : q == 2 ? -c : s;
  }
  return t;
}
__device__ const Made made = make();

// wide makes a double of a float by its bits: not 0, and of the sign that top says.
__device__ __forceinline__ double wide(float x, u32 top) {
  u32 b = __float_as_uint(x);
  return __hiloint2double((int)((b >> 3) + top), (int)(b << 29));
}
#define POSITIVE 0x38000000u
#define NEGATIVE 0xa8000000u

// border reports whether a double lies within 2^-38 of the middle between two floats.
__device__ __forceinline__ bool border(double x) { return ((u32)__double2loint(x) & 0x1fffffffu) - (0x10000000u - 0x8000u) < 0x10000u; }

__device__ __forceinline__ bool quick(u32 u, u32 v, const Tables& t, float* a, float* b) {
  double x = __hiloint2double(0x43300000, (int)u) - (4503599627370496.0 - 0.5);  // u + 0.5
  int hi = __double2hiint(x), up = hi - (106 << 12);
  double m = __hiloint2double(hi - (up & (int)0xfff00000) + 0x3fe00000, __double2loint(x));
  double2 c = t.log[(up >> 12) & 255];
  double r = FMA(m, c.x, -1.0);
  float f = __double2float_rn(r), tail = __fmaf_rn(f, __fmaf_rn(f, -0.4f, 0.5f), -2.0f / 3.0f);
  double l = FMA(MUL(r, r), FMA(r, wide(tail, NEGATIVE), 1.0), FMA(r, -2.0, ADD(t.twos[(up >> 20) - 1021], c.y)));
  float yf;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(yf) : "f"(__double2float_rn(l)));
  double y = wide(yf, POSITIVE), h = __hiloint2double(__double2hiint(y) - 0x100000, __double2loint(y)), g = MUL(l, y);
  double root = FMA(FMA(-g, g, l), h, g);

  const u32 part = 0xffffffffu / TURNS + 1;
  u32 w = v + part / 2, low = w & (part - 1);
  double2 sc = t.turn[w / part];
  float d = __uint_as_float(0x4b000000u | low) - (8388608.0f + part / 2), z = d * d;  // exact: at most 23 bits
  const double angle = 6.283185307179586 / 4294967296.0;
  float cm = z * __fmaf_rn(z, (float)(angle * angle * angle * angle / 24.0), (float)(-0.5 * angle * angle));
  float third = d * z * (float)(-angle * angle * angle / 6.0);
  double whole = __hiloint2double(0x43300000, (int)low) - (4503599627370496.0 + part / 2);
  double less = wide(cm, NEGATIVE), sd = FMA(whole, angle, (double)third);
  double s = FMA(sc.y, sd, FMA(sc.x, less, sc.x)), k = FMA(-sc.x, sd, FMA(sc.y, less, sc.y));
  s = MUL(s, root), k = MUL(k, root);
  *a = __double2float_rn(k);
  *b = __double2float_rn(s);
  return border(k) || border(s) || (v << 2) == 0;  // an exact 0 has a sign
}

template <typename D>
__device__ __forceinline__ void noise(const NoiseArgs& a) {
  __shared__ Tables t;
  for (u32 i = threadIdx.x; i < sizeof(Tables) / 8; i += blockDim.x) ((double*)&t)[i] = ((const double*)&made)[i];
  __syncthreads();
  D* dst = (D*)a.dst;
  for (u64 n = (u64)blockIdx.x * blockDim.x + threadIdx.x; 4 * n < a.count; n += (u64)gridDim.x * blockDim.x) {
    u32 c0 = (u32)n, c1 = (u32)(n >> 32), c2 = a.chunk, c3 = a.step, k0 = (u32)a.seed, k1 = (u32)(a.seed >> 32);
#pragma unroll
    for (int i = 0; i < 10; i++) {
      u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
      c0 = (u32)(p1 >> 32) ^ c1 ^ k0, c1 = (u32)p1, c2 = (u32)(p0 >> 32) ^ c3 ^ k1, c3 = (u32)p0;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    float v[4];
    bool first = quick(c0, c1, t, v, v + 1), second = quick(c2, c3, t, v + 2, v + 3);
    while (first | second) {
      float p, q;
      if (first) boxMuller(c0, c1, &p, &q), v[0] = p, v[1] = q, first = false;
      else boxMuller(c2, c3, &p, &q), v[2] = p, v[3] = q, second = false;
    }
    D* to = dst + 4 * n;
    if (4 * n + 4 <= a.count && ((u64)to & (4 * sizeof(D) - 1)) == 0) {
      if constexpr (sizeof(D) == 4) *(float4*)to = make_float4(v[0], v[1], v[2], v[3]);
      else *(uint2*)to = make_uint2(pack2(v[0], v[1]), pack2(v[2], v[3]));
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (4 * n + i < a.count) put(to + i, v[i]);
  }
}

extern "C" __global__ void __launch_bounds__(512, 2) noise_f(const __grid_constant__ NoiseArgs a) { begin(), noise<float>(a); }
extern "C" __global__ void __launch_bounds__(512, 2) noise_b(const __grid_constant__ NoiseArgs a) { begin(), noise<bf16>(a); }
