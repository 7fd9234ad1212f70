// Attention forward for sm_80 and newer: cp.async in, mma.sync m16n8k16, fp32 softmax in registers.
//
// Given to NVRTC after attend_parts.cuh, whose defines choose the variant; README.md beside this file
// holds the contract. It obeys the same launch record as attend_sm90.cu and shares no arithmetic
// code with its inner loop, so that each checks the other.
//
// A thread block is 8 warps of 16 query rows: one query tile, or one piece of it, a block. Keys pass
// in units of 64 through two shared-memory stages. With FEW, 32 or 64, there are no more keys than that: one stage, and registers
// for two blocks a multiprocessor, whose memory and arithmetic then overlap.

#ifndef FEW
#define FEW 0
#endif

struct Operands {  // strides in elements, the last dimension is contiguous, 16-byte aligned rows
  const bf16 *query, *key, *value;
  long long queryHead, queryToken, keyHead, keyToken, valueHead, valueToken;
};

constexpr int UNIT = FEW ? FEW : 64;              // keys of one stage
constexpr int CHUNKS = HEAD_DIM / 8;              // 16-byte chunks of a row
constexpr int QUERY_BYTES = ROWS * HEAD_DIM * 2;
constexpr int UNIT_BYTES = UNIT * HEAD_DIM * 2;   // shared memory: query, then 2 x (key unit, value unit)

// Rows are HEAD_DIM bf16; 16-byte chunks are swizzled by the row so that ldmatrix meets no bank twice.
__device__ __forceinline__ u32 at(u32 start, int row, int chunk) {
  return start + row * HEAD_DIM * 2 + ((chunk ^ (row & 7)) << 4);
}

// Copies `rows` rows from token `first`, writing zeros where the token is not below `limit`.
__device__ __forceinline__ void copyRows(u32 dst, const bf16 *src, long long stride, int first, int limit, int rows) {
  for (int i = threadIdx.x; i < rows * CHUNKS; i += 256) {
    const int row = i / CHUNKS, chunk = i % CHUNKS;
    const bool live = first + row < limit;
    const bf16 *from = src + (live ? (first + row) * stride + chunk * 8 : 0);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at(dst, row, chunk)), "l"(from), "r"(live ? 16 : 0)
                 : "memory");
  }
}
__device__ __forceinline__ void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ void loadMatrices(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
__device__ __forceinline__ void loadTransposed(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
__device__ __forceinline__ void multiply(float *c, const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The units of one item, in ascending order.
struct Units { int head, keys, first, last, begin; };

__device__ __forceinline__ Units unitsOf(const Attention &a, int tile, int low, int high, int parts) {
  Units u;
  u.head = tile / a.queryTiles;
  u.keys = RAGGED ? a.lengths[u.head] : a.keys;
  u.begin = LIST_TILE && tile > 0 ? a.tileEnds[tile - 1] : 0;
  const int total = LIST_TILE ? (a.tileEnds[tile] - u.begin) * (LIST_TILE / UNIT) : (u.keys + UNIT - 1) / UNIT;
  u.first = static_cast<int>(static_cast<long long>(total) * low / parts);
  u.last = static_cast<int>(static_cast<long long>(total) * high / parts);
  return u;
}

__device__ __forceinline__ int unitToken(const Attention &a, const Units &u, int i) {
  if (LIST_TILE == 0) return i * UNIT;
  constexpr int PER = LIST_TILE == 128 ? 2 : 1;
  return a.tileKeys[u.begin + i / PER] * LIST_TILE + (i % PER) * UNIT;
}

__device__ __forceinline__ void scoreUnit(float (&s)[UNIT / 2], const u32 (&q)[HEAD_DIM / 16][4], u32 keyAt, int lane) {
#pragma unroll
  for (int i = 0; i < UNIT / 2; i++) s[i] = 0.0f;
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; k++) {
#pragma unroll
    for (int n = 0; n < UNIT / 16; n++) {
      u32 b[4];
      loadMatrices(b, at(keyAt, 16 * n + (lane & 7) + (lane / 16) * 8, 2 * k + ((lane / 8) & 1)));
      multiply(s + 8 * n, q[k], b[0], b[1]);
      multiply(s + 8 * n + 4, q[k], b[2], b[3]);
    }
  }
}

// Scores to weights, with scale, log-counts and the bound on the keys; turns the running sums, and leaves in rows what outputs are turned by.
__device__ __forceinline__ void weigh(float (&s)[UNIT / 2], Rows &rows, const float *logCount, int token, int keys, float scale,
                                      float unit, int lane) {
#pragma unroll
  for (int j = 0; j < UNIT / 8; j++) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int key = token + 8 * j + 2 * (lane & 3) + e;
      const bool live = key < keys;
      const float b = BIAS && live ? logCount[key] : 0.0f;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float &x = s[4 * j + 2 * r + e];
        x = live ? (BIAS ? fmaf(x, scale, b) : x) : NEG_INF;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = rows.top[r];
#pragma unroll
    for (int j = 0; j < UNIT / 8; j++) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    top = quadMax(top);
    const float turn = top == NEG_INF ? 1.0f : exp2Fast((rows.top[r] - top) * unit);
    const float off = top == NEG_INF ? 0.0f : -top * unit;
    rows.top[r] = top;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < UNIT / 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float &x = s[4 * j + 2 * r + e];
        x = exp2Fast(fmaf(x, unit, off));
        sum += x;
      }
    }
    rows.sum[r] = rows.sum[r] * turn + sum;
    rows.turn[r] = turn;
  }
}

__device__ __forceinline__ void turnOuts(float (&o)[OUTS], const Rows &rows) {
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j++) {
      o[4 * j + 2 * r] *= rows.turn[r];
      o[4 * j + 2 * r + 1] *= rows.turn[r];
    }
}

__device__ __forceinline__ void loadQueries(u32 (&q)[HEAD_DIM / 16][4], u32 smem, int warp, int lane) {
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; k++)
    loadMatrices(q[k], at(smem, 16 * warp + (lane & 7) + ((lane / 8) & 1) * 8, 2 * k + lane / 16));
}

__device__ __forceinline__ void addValues(float (&o)[OUTS], const float (&s)[UNIT / 2], u32 valueAt, int lane) {
#pragma unroll
  for (int k = 0; k < UNIT / 16; k++) {
    const u32 p[4] = {packBf16(s[8 * k], s[8 * k + 1]), packBf16(s[8 * k + 2], s[8 * k + 3]),
                      packBf16(s[8 * k + 4], s[8 * k + 5]), packBf16(s[8 * k + 6], s[8 * k + 7])};
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 16; n++) {
      u32 b[4];
      loadTransposed(b, at(valueAt, 16 * k + (lane & 7) + ((lane / 8) & 1) * 8, 2 * n + lane / 16));
      multiply(o + 8 * n, p, b[0], b[1]);
      multiply(o + 8 * n + 4, p, b[2], b[3]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(256, FEW ? 2 : 1)
    attend(const __grid_constant__ Operands x, const __grid_constant__ Attention a) {
  extern __shared__ uint4 raw[];
  const u32 smem = static_cast<u32>(__cvta_generic_to_shared(raw));
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const int rest = a.heads * a.queryTiles - a.whole;
  const int slot = static_cast<int>(blockIdx.x) - a.whole;
  const int split = slot < 0 ? 0 : ((slot + 1) * rest - 1) / (a.pieces + rest);  // the split tile whose parts lie around slot
  const Piece piece = slot < 0 ? Piece{static_cast<int>(blockIdx.x), -1, 0, 1} : pieceOf(a, split, slot - split);
  const int tile = piece.tile;
  const Units u = unitsOf(a, tile, piece.low, piece.high, slot < 0 ? 1 : a.pieces);
  const bf16 *keys = x.key + u.head * x.keyHead, *values = x.value + u.head * x.valueHead;
  const float *logCount = BIAS ? a.logCount + (BY_TILE ? tile : u.head) * a.logCountHead : nullptr;
  const float unit = BIAS ? LOG2E : a.scale * LOG2E;
  auto load = [&](int i) {
    const u32 stage = smem + QUERY_BYTES + ((i - u.first) & 1) * 2 * UNIT_BYTES;
    const int token = unitToken(a, u, i);
    copyRows(stage, keys, x.keyToken, token, u.keys, UNIT);
    copyRows(stage + UNIT_BYTES, values, x.valueToken, token, u.keys, UNIT);
  };
  copyRows(smem, x.query + u.head * x.queryHead, x.queryToken, (tile % a.queryTiles) * ROWS, a.queries, ROWS);
  if (u.first < u.last) load(u.first);
  copyCommit();
  float o[OUTS] = {};
  Rows rows = {{NEG_INF, NEG_INF}, {0.0f, 0.0f}, {1.0f, 1.0f}};
  u32 q[HEAD_DIM / 16][4];
  if constexpr (FEW > 0) {
    copyWait<0>();
    __syncthreads();
    if (u.first < u.last) {
      float s[UNIT / 2];
      loadQueries(q, smem, warp, lane);
      scoreUnit(s, q, smem + QUERY_BYTES, lane);
      weigh(s, rows, logCount, 0, u.keys, a.scale, unit, lane);
      addValues(o, s, smem + QUERY_BYTES + UNIT_BYTES, lane);
    }
  } else {
    for (int i = u.first; i < u.last; i++) {
      if (i + 1 < u.last) load(i + 1);
      copyCommit();
      copyWait<1>();
      __syncthreads();
      if (i == u.first) loadQueries(q, smem, warp, lane);
      const u32 stage = smem + QUERY_BYTES + ((i - u.first) & 1) * 2 * UNIT_BYTES;
      float s[UNIT / 2];
      scoreUnit(s, q, stage, lane);
      weigh(s, rows, logCount, unitToken(a, u, i), u.keys, a.scale, unit, lane);
      turnOuts(o, rows);
      addValues(o, s, stage + UNIT_BYTES, lane);
      __syncthreads();
    }
    copyWait<0>();
  }
  storeItem(a, o, rows, tile, piece.slot, 16 * warp + lane / 4, lane, unit);
}
