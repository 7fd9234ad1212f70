// Hopper instructions for attend_sm90.cu: barriers, tensor-map copies, wgmma. Given to NVRTC between
// attend_parts.cuh and attend_sm90.cu.

#ifndef BLOCK_N
#define BLOCK_N 128
#endif
#ifndef STAGES
#define STAGES 2
#endif
constexpr float SLACK = 8.0f;  // in powers of two: how far a row's maximum may rise before its sums are rescaled
// Registers of a loading thread; a computing one gets half of what that leaves of 504.
constexpr int LOAD_REGS = BLOCK_N == 160 && !BIAS ? 24 : 40;

struct alignas(64) TensorMap { u64 words[16]; };

__device__ __forceinline__ u32 sharedAddress(const void *p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void barInit(u32 bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void barExpect(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barArrive(u32 bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barWait(u32 bar, u32 parity) {
  u32 done;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
  } while (!done);
}
template <int N> struct Ring {  // position in a ring of places and the parity of its barriers
  int at;
  u32 parity;
  __device__ __forceinline__ void next() {
    if (++at == N) { at = 0; parity ^= 1; }
  }
};

__device__ __forceinline__ void loadBox(u32 dst, const TensorMap *map, u32 bar, int column, int token, int head) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
               ::"r"(dst), "l"(map), "r"(bar), "r"(column), "r"(token), "r"(head) : "memory");
}
__device__ __forceinline__ void namedSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void namedArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void mmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void mmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void mmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Pins register arrays between asynchronous matrix instructions and ordinary code: without it the
// compiler may read an accumulator before the wait that makes it valid.
template <int N> __device__ __forceinline__ void pin(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i]));
}
template <int N> __device__ __forceinline__ void pin(u32 (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i]));
}

// ---- wgmma ----

// Shared-memory matrix descriptors, 128-byte swizzle: groups of 8 rows of 128 bytes, 1,024 bytes apart.
// Keys and queries are K-major; values are MN-major, `lead` the distance of their 64-column halves. Only
// the low word varies, so it alone is computed.
constexpr u64 MATRIX = 0x4000004000000000ull;
constexpr u64 COUNTS = 0x0000000800000000ull;  // log-counts: no swizzle, groups of 8 rows of 16 bytes
__device__ __forceinline__ u32 matrixAt(u32 address, u32 lead) {
  return ((address & 0x3ffff) >> 4) | ((lead >> 4) << 16);
}

#define T8_0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define T8_1 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define T8_2 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define T8_3 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define T8_4 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define T8_5 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define T8_6 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define T8_7 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define T8_8 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define T8_9 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define T32 T8_0 T8_1 T8_2 T8_3
#define T64 T32 T8_4 T8_5 T8_6 T8_7
#define T80 T64 T8_8 T8_9
#define R8(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]), "+f"(x[i + 7])
#define R32(x) R8(x, 0), R8(x, 8), R8(x, 16), R8(x, 24)
#define R64(x) R32(x), R8(x, 32), R8(x, 40), R8(x, 48), R8(x, 56)
#define R80(x) R64(x), R8(x, 64), R8(x, 72)

#if BLOCK_N == 128
#define QK(F) F("n128", T64, R64(s), "%64", "%65", "%66", "%67", "%68", "%69")
#elif BLOCK_N == 160
#define QK(F) F("n160", T80, R80(s), "%80", "%81", "%82", "%83", "%84", "%85")
#else
#error "BLOCK_N must be 128 or 160"
#endif
#if HEAD_DIM == 128
#define PV(F) F("n128", T64, R64(o), "%64", "%65", "%66", "%67", "%68")
#else
#define PV(F) F("n64", T32, R32(o), "%32", "%33", "%34", "%35", "%36")
#endif
// Both operands from shared memory; the left one from registers; the same with the right one MN-major.
#define MMA_SS(SHAPE, TEXT, REGS, X0, X1, X2, ...)                                                                   \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " X2 ", 0;\nwgmma.mma_async.sync.aligned.m64" SHAPE                \
               "k16.f32.bf16.bf16 {" TEXT "}, " X0 ", " X1 ", p, 1, 1, 0, 0;\n}" : REGS : "l"(a), "l"(b), "r"(more))
#define MMA_RS(SHAPE, TEXT, REGS, X0, X1, X2, X3, X4, X5)                                                            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " X5 ", 0;\nwgmma.mma_async.sync.aligned.m64" SHAPE                \
               "k16.f32.bf16.bf16 {" TEXT "}, {" X0 "," X1 "," X2 "," X3 "}, " X4 ", p, 1, 1, 0;\n}"                 \
               : REGS : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(more))
#define MMA_RT(SHAPE, TEXT, REGS, X0, X1, X2, X3, X4)                                                                \
  asm volatile("wgmma.mma_async.sync.aligned.m64" SHAPE "k16.f32.bf16.bf16 {" TEXT "}, {" X0 "," X1 "," X2 "," X3    \
               "}, " X4 ", 1, 1, 1, 1;" : REGS : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b))

constexpr int SCORES = BLOCK_N / 2;   // fp32 score registers of a thread
constexpr int WEIGHTS = BLOCK_N / 4;  // packed bf16 weight registers of a thread

// One k-step of 16 each: s = or += left x right. `more` 0 starts s, and must be a constant after inlining.
__device__ __forceinline__ void scoreStep(float (&s)[SCORES], u64 a, u64 b, int more) { QK(MMA_SS); }
__device__ __forceinline__ void scoreStep(float (&s)[SCORES], u32 a0, u32 a1, u32 a2, u32 a3, u64 b, int more) { QK(MMA_RS); }
__device__ __forceinline__ void outputStep(float (&o)[OUTS], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) { PV(MMA_RT); }
