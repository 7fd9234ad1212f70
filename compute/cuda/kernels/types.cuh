// Shared by every kernel: it is put in front of each .cu file. No header of the CUDA toolkit is used, so NVRTC alone suffices.
// Element types are float and bf16; arithmetic is float. A chunk is 8 neighbouring elements (16 or 32 bytes, moved by
// 16-byte accesses) or, where alignment forbids that, 1 element.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

struct bf16 {
  u16 bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// begin waits for the kernel before, and lets the one after start: kernels whose file is marked early begin with it, and so have
// their blocks in place when the one before ends (programmatic dependent launch; Hopper and newer).
__device__ __forceinline__ void begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// pack2 rounds two floats to nearest even; lo goes to the lower half.
__device__ __forceinline__ u32 pack2(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

// pack4 rounds four numbers to e4m3, the first in the lowest byte. GPUs before sm_89 have no such type: there it is never called, but compiled.
__device__ __forceinline__ u32 pack4(float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  u16 lo, hi;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(lo) : "f"(b), "f"(a));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(hi) : "f"(d), "f"(c));
  return lo | (u32)hi << 16;
#else
  return 0;
#endif
}

// angle is the cosine that so many different bits of two codes stand for, as the host has it: half of them is next to a right angle. It divides
// by two steps of Newton's; a division would call a function, and callers keep registers for it in local memory.
__device__ __forceinline__ float angle(u32 differ, u32 bits) {
  double all = bits, part = __fdividef(1.0f, (float)bits);
  part = fma(part, fma(-all, part, 1.0), part);
  part = fma(part, fma(-all, part, 1.0), part);
  return 2 * differ == bits ? 6.123234e-17f : (float)cospi(differ * part);
}

// sharesBucket reports whether a key's code shares a bucket with a query's in one of some tables of so many bits, 64 / bits of them in a word:
// their bits are equal, or differ in one that is weak, which the query is not certain of.
__device__ __forceinline__ bool sharesBucket(const u64* query, const u64* key, const u64* weak, u32 tables, u32 bits) {
  u32 each = 64 / bits;
  for (u32 t = 0; t < tables; t++) {
    u32 w = t / each;
    u64 d = (query[w] ^ key[w]) & ((1ull << bits) - 1) << t % each * bits;
    if (d == 0 || ((d & (d - 1)) == 0 && (d & weak[w]) != 0)) return true;
  }
  return false;
}

__device__ __forceinline__ void put(float* p, float v) { *p = v; }
__device__ __forceinline__ void put(bf16* p, float v) { p->bits = (u16)pack2(v, 0.0f); }

__device__ __forceinline__ void load8(float (&v)[8], const float* p) {
  float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

__device__ __forceinline__ void load8(float (&v)[8], const bf16* p) {
  uint4 u = *reinterpret_cast<const uint4*>(p);
  u32 w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = __uint_as_float(w[i] << 16);
    v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void store8(float* p, const float (&v)[8]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ void store8(bf16* p, const float (&v)[8]) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
}

// load and store move a chunk of V elements, V = 8 or 1.
template <int V, typename T>
__device__ __forceinline__ void load(float (&v)[V], const T* p) {
  if constexpr (V == 8) load8(v, p);
  else v[0] = widen(p[0]);
}

template <int V, typename T>
__device__ __forceinline__ void store(T* p, const float (&v)[V]) {
  if constexpr (V == 8) store8(p, v);
  else put(p, v[0]);
}

// Activations as compute.Activation numbers them: 0 none, 1 GELU (tanh), 2 SiLU, 3 ReLU. Both smooth ones are x*sigmoid(z),
// since (1 + tanh u)/2 = sigmoid(2u), which loses nothing where tanh is near -1. __expf is within 2 + |z| ulp.
__device__ __forceinline__ float activate(float x, u32 act) {
  if (act == 0) return x;
  if (act == 3) return x > 0.0f ? x : (x == x ? 0.0f : x);
  float z = act == 1 ? 1.5957691216057308f * x * (1.0f + 0.044715f * x * x) : x;
  return __fdividef(x, 1.0f + __expf(-z));
}

// Division by a number that the host prepared (see divisor in map.go), for n below 2^31.
struct Divisor {
  u32 d, m, shift;
};
__device__ __forceinline__ u32 over(u32 n, const Divisor& by) { return by.d == 1 ? n : __umulhi(n, by.m) >> by.shift; }

// Codes left in a queue's fault word; compute/cuda/queue.go names them.
#define FAULT_INDEX 1u     // Gather: an index outside the table
#define FAULT_POSITION 2u  // Rope: a row or column position outside its table
#define FAULT_TILES 3u     // Attend: a tile list that leaves its tensor

// Turn rotates pairs of adjacent elements by three-dimensional positions; see kernels/rope. turn in rope.go has the same layout.
struct Turn {
  const int* pos;
  const float2 *time, *row, *column;  // (cos, sin) tables [positions, pairs]
  u32* fault;
  i64 posHead, posToken;
  u32 timePairs, rowPairs, columnPairs;
  u32 times, rows, columns;  // positions in each table
  i32 minTime;
  u32 inverse;
};

// Angles are the rows of the tables for one token.
struct Angles {
  const float2 *time, *row, *column;
};

__device__ __forceinline__ Angles angles(const Turn& a, u32 head, u32 token) {
  const int* pos = a.pos + head * a.posHead + token * a.posToken;
  Angles t = {nullptr, nullptr, nullptr};
  bool outside = false;
  if (a.timePairs) {
    int p = max(pos[0], a.minTime) % (int)a.times;
    if (p < 0) p += a.times;
    t.time = a.time + (i64)p * a.timePairs;
  }
  if (a.rowPairs) {
    u32 p = (u32)pos[1];
    if (p >= a.rows) outside = true, p = 0;
    t.row = a.row + (i64)p * a.rowPairs - a.timePairs;
  }
  if (a.columnPairs) {
    u32 p = (u32)pos[2];
    if (p >= a.columns) outside = true, p = 0;
    t.column = a.column + (i64)p * a.columnPairs - (a.timePairs + a.rowPairs);
  }
  if (outside) *a.fault = FAULT_POSITION;
  return t;
}

// turnsOf reads the turns, as (cos, sin), of a chunk of V elements whose first pair in its head is pair; rotateBy turns it.
template <int V>
__device__ __forceinline__ void turnsOf(float2 (&cs)[V / 2], const Turn& a, const Angles& t, u32 pair) {
#pragma unroll
  for (int j = 0; j < V / 2; j++, pair++) {
    cs[j] = (pair < a.timePairs ? t.time : pair < a.timePairs + a.rowPairs ? t.row : t.column)[pair];
    if (a.inverse) cs[j].y = -cs[j].y;
  }
}

template <int V>
__device__ __forceinline__ void rotateBy(float (&v)[V], const float2 (&cs)[V / 2]) {
#pragma unroll
  for (int j = 0; j < V / 2; j++) {
    float p = v[2 * j], q = v[2 * j + 1];
    v[2 * j] = p * cs[j].x - q * cs[j].y;
    v[2 * j + 1] = p * cs[j].y + q * cs[j].x;
  }
}

template <int V>
__device__ __forceinline__ void rotate(float (&v)[V], const Turn& a, const Angles& t, u32 pair) {
  float2 cs[V / 2];
  turnsOf<V>(cs, a, t, pair);
  rotateBy<V>(v, cs);
}
