// Convolution as a matrix product whose left side is gathered while it is loaded (implicit GEMM), see README.md. BN, the
// outputs of a block, is defined by the launch side: 128, 96, 64 or 16; so is NEAR, the form for squares of 3 x 3.
struct ConvArgs {
  void* dst;
  const bf16* source[3];      // null: zeros
  const bf16* weight;         // [out, depth]
  const float* bias;          // [out] or null
  i64 dstRow;
  u32 row[3], column[3];      // strides of the sources, in chunks of 8 elements
  Divisor channels;           // chunks of a pixel
  Divisor taps, size;         // size * size, size
  Divisor columns;            // of the rectangle
  u32 pixels, out, depth;     // depth in chunks
  u32 stride, height, wide;   // the enlarged source
  i32 firstRow, firstColumn;  // of the rectangle, in enlarged source pixels, less the padding
  u32 upShift, act, dstHalf, pad;
};
static_assert(sizeof(ConvArgs) == 176, "ConvArgs is mirrored by convArgs in conv.go");

__device__ __forceinline__ u32 sharedAddress(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// bring copies 16 bytes, or zeros, to shared memory without waiting.
__device__ __forceinline__ void bring(u32 to, const void* from, bool inside) {
  u32 n = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n) : "memory");
}

// spot is where chunk c of row r of a tile lies: rows of 128 bytes, chunks exchanged so that 8 rows meet all banks.
__device__ __forceinline__ u32 spot(u32 r, u32 c) { return r * 128 + ((c ^ (r & 7)) << 4); }

__device__ __forceinline__ void matrices(u32 (&v)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at));
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// finish writes what a warp has summed up: M x N tiles of 16 x 8 whose outputs begin at n0 + column. rowOf(m, r) is which of the block's pixels, all of them
// together, has row r of tile m, pixelOf which pixel of the rectangle that is, or -1. Whole chunks go by way of shared memory, which nothing needs any more.
template <int M, int N, typename RowOf, typename PixelOf>
__device__ __forceinline__ void finish(const ConvArgs& a, const float (&acc)[M][N][4], u32 n0, u32 column, u32 all, RowOf rowOf, PixelOf pixelOf) {
  extern __shared__ float4 shared[];
  bool staged = a.dstHalf && a.out % 8 == 0 && a.dstRow % 8 == 0 && ((u64)a.dst & 15) == 0;
  u16* tile = (u16*)shared;
  u32 lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < N; n++) {
    u32 col = column + n * 8 + lane % 4 * 2, out = n0 + col;
    float b0 = a.bias != nullptr && out < a.out ? a.bias[out] : 0.0f, b1 = a.bias != nullptr && out + 1 < a.out ? a.bias[out + 1] : 0.0f;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        u32 r = rowOf(m, lane / 4 + h * 8);
        float v0 = activate(acc[m][n][2 * h] + b0, a.act), v1 = activate(acc[m][n][2 * h + 1] + b1, a.act);
        if (staged) {
          *(u32*)(tile + r * (BN + 8) + col) = pack2(v0, v1);
          continue;
        }
        i64 pixel = pixelOf(r);
        if (pixel < 0) continue;
        i64 to = pixel * a.dstRow + out;
        if (out < a.out) a.dstHalf ? put((bf16*)a.dst + to, v0) : put((float*)a.dst + to, v0);
        if (out + 1 < a.out) a.dstHalf ? put((bf16*)a.dst + to + 1, v1) : put((float*)a.dst + to + 1, v1);
      }
  }
  if (!staged) return;
  __syncthreads();
  for (u32 i = threadIdx.x; i < all * (BN / 8); i += blockDim.x) {
    u32 r = i / (BN / 8), c = i % (BN / 8) * 8;
    i64 pixel = pixelOf(r);
    if (pixel >= 0 && n0 + c < a.out) *(uint4*)((bf16*)a.dst + pixel * a.dstRow + n0 + c) = *(const uint4*)(tile + r * (BN + 8) + c);
  }
}

#if !NEAR
#define BM 128                            // pixels of a block
#define BK 64                             // depth of a stage: 8 chunks
#define STAGES 3
#define THREADS 128
#define WARPS_N (BN >= 64 ? 2 : 1)
#define WARPS_M (4 / WARPS_N)
#define MT (BM / WARPS_M / 16)            // 16-row tiles of a warp
#define NT (BN / WARPS_N / 8)             // 8-column tiles of a warp
#define STAGE_BYTES ((BM + BN) * BK * 2)

// Loader is a thread's part of every stage: one chunk column, and every 16th row.
struct Loader {
  i32 y[BM / 16], x[BM / 16];  // first tap of each pixel
  u32 chunk, row0, n0;
};

__device__ __forceinline__ void loadStage(const ConvArgs& a, const Loader& l, u32 stage, u32 base) {
  u32 k = stage * (BK / 8) + l.chunk;
  bool deep = k < a.depth;
  u32 place = over(k, a.channels), c = k - place * a.channels.d;
  u32 s = over(place, a.taps), tap = place - s * a.taps.d;
  u32 i = over(tap, a.size), j = tap - i * a.size.d;
  const bf16* from = s == 0 ? a.source[0] : s == 1 ? a.source[1] : a.source[2];
  u32 row = s == 0 ? a.row[0] : s == 1 ? a.row[1] : a.row[2], column = s == 0 ? a.column[0] : s == 1 ? a.column[1] : a.column[2];
  deep = deep && from != nullptr;
#pragma unroll
  for (int r = 0; r < BM / 16; r++) {
    u32 y = (u32)(l.y[r] + (i32)i), x = (u32)(l.x[r] + (i32)j);
    bool inside = deep && y < a.height && x < a.wide;
    u32 at = (y >> a.upShift) * row + (x >> a.upShift) * column + c;
    bring(base + spot(l.row0 + 16 * r, l.chunk), inside ? (const char*)from + (u64)at * 16 : (const char*)a.weight, inside);
  }
  u32 weights = base + BM * BK * 2;
#pragma unroll
  for (int r = 0; r < BN / 16; r++) {
    u32 n = l.n0 + l.row0 + 16 * r;
    bool inside = k < a.depth && n < a.out;
    bring(weights + spot(l.row0 + 16 * r, l.chunk), (const char*)a.weight + (inside ? ((u64)n * a.depth + k) * 16 : 0), inside);
  }
}

// Rows past the last pixel get a y that is outside of every image.
extern "C" __global__ void __launch_bounds__(THREADS) conv(const __grid_constant__ ConvArgs a) {
  extern __shared__ float4 shared[];
  u32 base = sharedAddress(shared), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 wm = warp % WARPS_M, wn = warp / WARPS_M, m0 = blockIdx.y * BM;
  Loader l;
  l.chunk = threadIdx.x % 8, l.row0 = threadIdx.x / 8, l.n0 = blockIdx.x * BN;
#pragma unroll
  for (int r = 0; r < BM / 16; r++) {
    u32 pixel = m0 + l.row0 + 16 * r, y = over(pixel, a.columns), x = pixel - y * a.columns.d;
    l.y[r] = pixel < a.pixels ? a.firstRow + (i32)(y * a.stride) : -(1 << 30);
    l.x[r] = a.firstColumn + (i32)(x * a.stride);
  }
  float acc[MT][NT][4];
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[m][n][e] = 0.0f;
  u32 stages = (a.depth + BK / 8 - 1) / (BK / 8);
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < stages) loadStage(a, l, s, base + s * STAGE_BYTES);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  u32 slot = 0, next = STAGES - 1;
  for (u32 s = 0; s < stages; s++) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
    __syncthreads();  // stage s is there for all, and all have left the one that is loaded next
    if (s + STAGES - 1 < stages) loadStage(a, l, s + STAGES - 1, base + next * STAGE_BYTES);
    asm volatile("cp.async.commit_group;" ::: "memory");
    u32 at = base + slot * STAGE_BYTES, wt = at + BM * BK * 2;
#pragma unroll
    for (int k = 0; k < BK / 16; k++) {
      u32 av[MT][4], bv[NT / 2][4];
#pragma unroll
      for (int m = 0; m < MT; m++) matrices(av[m], at + spot(wm * (MT * 16) + m * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < NT / 2; n++) matrices(bv[n], wt + spot(wn * (NT * 8) + n * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++) multiply(acc[m][n], av[m], bv[n / 2][n % 2 * 2], bv[n / 2][n % 2 * 2 + 1]);
    }
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
  }
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  finish(a, acc, l.n0, wn * (NT * 8), BM, [&](u32 m, u32 r) { return wm * (MT * 16) + m * 16 + r; }, [&](u32 r) { return m0 + r < a.pixels ? (i64)(m0 + r) : -1; });
}

#else
#define SIDE 16                      // pixels of a block: a square
#define HALO (SIDE + 2)              // with what the taps see around it
#define THREADS 256
#define NT (BN / 8)                  // 8-column tiles of a warp, which has two rows of the square
#define HALO_BYTES (HALO * HALO * 128)
#define SLAB_BYTES (BN * 128)        // weights of a tap, 64 channels of a source
#define SLABS 3
#define SLICE (2 * THREADS)          // chunks of a halo that are fetched at a tap

// Square is what a block makes.
struct Square {
  i32 y, x;    // its first tap in the enlarged source
  u32 row, column, n0;
  u32 blocks;  // of 64 channels of a source
  u32 live;    // the sources that are there, two bits each
};

__device__ __forceinline__ u32 sourceOf(const Square& q, u32 pass, u32& block) {
  u32 at = pass / q.blocks;
  block = pass - at * q.blocks;
  return q.live >> (2 * at) & 3;
}

// loadHalo fetches chunks lo to hi of what a pass sees; chunks of a pixel lie together.
__device__ __forceinline__ void loadHalo(const ConvArgs& a, const Square& q, u32 pass, u32 lo, u32 hi, u32 base) {
  u32 block, s = sourceOf(q, pass, block);
  const bf16* from = s == 0 ? a.source[0] : s == 1 ? a.source[1] : a.source[2];
  u32 row = s == 0 ? a.row[0] : s == 1 ? a.row[1] : a.row[2], column = s == 0 ? a.column[0] : s == 1 ? a.column[1] : a.column[2];
  for (u32 i = lo + threadIdx.x; i < hi; i += THREADS) {
    u32 pixel = i / 8, c = i % 8, dy = pixel / HALO, dx = pixel - dy * HALO;
    u32 y = (u32)(q.y + (i32)dy), x = (u32)(q.x + (i32)dx);
    bool inside = y < a.height && x < a.wide;
    u32 at = (y >> a.upShift) * row + (x >> a.upShift) * column + block * 8 + c;
    bring(base + (pass & 1) * HALO_BYTES + spot(pixel, c), inside ? (const char*)from + (u64)at * 16 : (const char*)a.weight, inside);
  }
}

// loadSlab fetches the weights of a tap in a pass.
__device__ __forceinline__ void loadSlab(const ConvArgs& a, const Square& q, u32 pass, u32 tap, u32 to) {
  u32 block, s = sourceOf(q, pass, block), depth = (s * 9 + tap) * a.channels.d + block * 8;
#pragma unroll
  for (u32 i = threadIdx.x; i < BN * 8; i += THREADS) {
    u32 r = i / 8, c = i % 8, n = q.n0 + r;
    bool inside = n < a.out;
    bring(to + spot(r, c), (const char*)a.weight + (inside ? ((u64)n * a.depth + depth + c) * 16 : 0), inside);
  }
}

// The square's surroundings are fetched once for the nine taps, those of the next pass (64 channels of a source) at the taps of this one.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv(const __grid_constant__ ConvArgs a) {
  extern __shared__ float4 shared[];
  u32 base = sharedAddress(shared), slabs = base + 2 * HALO_BYTES, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 columns = a.columns.d, rows = a.pixels / columns, across = (columns + SIDE - 1) / SIDE, live = 0;
  Square q;
  q.row = blockIdx.y / across * SIDE, q.column = blockIdx.y % across * SIDE, q.n0 = blockIdx.x * BN;
  q.y = a.firstRow + (i32)q.row, q.x = a.firstColumn + (i32)q.column, q.blocks = a.channels.d / 8, q.live = 0;
#pragma unroll
  for (u32 s = 0; s < 3; s++)
    if (a.source[s] != nullptr) q.live |= s << (2 * live), live++;
  u32 passes = live * q.blocks;
  float acc[2][NT][4];
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[m][n][e] = 0.0f;
  loadHalo(a, q, 0, 0, HALO * HALO * 8, base);
  loadSlab(a, q, 0, 0, slabs);
  asm volatile("cp.async.commit_group;" ::: "memory");
  loadSlab(a, q, 0, 1, slabs + SLAB_BYTES);
  asm volatile("cp.async.commit_group;" ::: "memory");
  u32 slot = 0, next = 2;
  for (u32 pass = 0; pass < passes; pass++)
    for (u32 tap = 0; tap < 9; tap++) {
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      __syncthreads();  // what this tap reads is there for all, and all have left what is fetched next
      u32 wraps = tap + 2 >= 9;
      if (pass + wraps < passes) loadSlab(a, q, pass + wraps, tap + 2 - 9 * wraps, slabs + next * SLAB_BYTES);
      if (pass + 1 < passes && tap * SLICE < HALO * HALO * 8) loadHalo(a, q, pass + 1, tap * SLICE, min((tap + 1) * SLICE, HALO * HALO * 8u), base);
      asm volatile("cp.async.commit_group;" ::: "memory");
      u32 i = tap / 3, j = tap - i * 3, h = (2 * warp + i) * HALO + lane % 16 + j;
      u32 at = base + (pass & 1) * HALO_BYTES, wt = slabs + slot * SLAB_BYTES;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        u32 av[2][4], bv[NT / 2][4];
        matrices(av[0], at + spot(h, k * 2 + lane / 16));
        matrices(av[1], at + spot(h + HALO, k * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < NT / 2; n++) matrices(bv[n], wt + spot(n * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
          for (int n = 0; n < NT; n++) multiply(acc[m][n], av[m], bv[n / 2][n % 2 * 2], bv[n / 2][n % 2 * 2 + 1]);
      }
      slot = slot + 1 == SLABS ? 0 : slot + 1;
      next = next + 1 == SLABS ? 0 : next + 1;
    }
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  finish(a, acc, q.n0, 0, SIDE * SIDE, [&](u32 m, u32 r) { return (2 * warp + m) * SIDE + r; }, [&](u32 r) {
    u32 y = q.row + r / SIDE, x = q.column + r % SIDE;
    return y < rows && x < columns ? (i64)(y * columns + x) : -1;
  });
}
#endif
