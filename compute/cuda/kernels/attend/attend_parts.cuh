// Parts that both attention kernels share: the launch record, row state, output, and the merge kernel.
// The source given to NVRTC is this file followed by attend_mma.cu, or by attend_hopper.cuh and attend_sm90.cu; README.md
// beside it holds the contract. Defines of both:
//   HEAD_DIM   64 or 128
//   LIST_TILE  0 = every key; 64 or 128 = ascending lists of key tiles of that size
//   BIAS       1 = add an fp32 log-count to each key's score
//   RAGGED     1 = each head has its own number of keys
//   OUT_F32    1 = fp32 output instead of bf16
//   BY_TILE    1 = log-counts have a row for each tile of queries, not for each head

#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef LIST_TILE
#define LIST_TILE 0
#endif
#ifndef BIAS
#define BIAS 0
#endif
#ifndef RAGGED
#define RAGGED 0
#endif
#ifndef OUT_F32
#define OUT_F32 0
#endif
#ifndef BY_TILE
#define BY_TILE 0
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short bf16;  // only moved, never computed with

constexpr int ROWS = 128;           // query rows of a tile
constexpr int OUTS = HEAD_DIM / 2;  // fp32 output registers of a thread
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;
#define NEG_INF __int_as_float(0xff800000)

static_assert(HEAD_DIM == 64 || HEAD_DIM == 128, "head dim");
static_assert(LIST_TILE == 0 || LIST_TILE == 64 || LIST_TILE == 128, "list tile");

// What a launch needs besides the three tensor maps; field order is part of the contract.
struct Attention {
  void *out;              // [heads][queries][HEAD_DIM], strides below
  float *logSum;          // [heads][queries] natural log of the softmax sum, or null
  const float *logCount;  // [heads][keys], BIAS only; [heads * queryTiles][keys] with BY_TILE
  const int *lengths;     // [heads], RAGGED only
  const int *tileKeys;    // lists only: key tile ids, ascending in each list
  const int *tileEnds;    // lists only: [heads * queryTiles] ends of the lists in tileKeys
  float *partOut;         // [pieces + tiles - whole - 1][ROWS][HEAD_DIM], when pieces > 1
  float *partLogSum;      // [pieces + tiles - whole - 1][ROWS]
  int *counter;           // two ints, zero before the first launch; null = items dealt in turn
  long long outHead, outToken;   // in elements
  long long logCountHead;        // in floats
  int heads, queries, keys, queryTiles;
  int whole;              // the first tiles, each one item
  int pieces;             // items into which the later tiles are cut, all together
  float scale;
  int pad;
};

__device__ __forceinline__ float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ u32 packBf16(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// Piece j of the tiles beyond `whole` begins and ends where equal cuts of all their keys fall, so it may end one tile and
// begin the next. Tile `whole` + t has low..high, of `pieces`, of its keys in it, and leaves them at `slot` of the part
// arrays: each step along the pieces raises j, t or both, so j + t is free.
struct Piece { int tile, slot, low, high; };

__device__ __forceinline__ Piece pieceOf(const Attention &a, int t, int j) {
  const int rest = a.heads * a.queryTiles - a.whole;
  const int at = j * rest - t * a.pieces;
  const int low = min(max(at, 0), a.pieces);
  return {a.whole + t, j + t, low, max(low, min(at + rest, a.pieces))};
}

// Two rows of running softmax state: `top` in score units, `sum` this thread's part only.
struct Rows { float top[2], sum[2], turn[2]; };

__device__ __forceinline__ float quadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quadSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// ---- output ----

// Exchanges within groups of four lanes so that lane q ends with the q-th word of each lane.
__device__ __forceinline__ void quadTranspose(u32 (&w)[4], int lane) {
  const bool odd = lane & 1, upper = lane & 2;
  u32 x = __shfl_xor_sync(0xffffffffu, odd ? w[0] : w[1], 1);
  u32 y = __shfl_xor_sync(0xffffffffu, odd ? w[2] : w[3], 1);
  if (odd) { w[0] = x; w[2] = y; } else { w[1] = x; w[3] = y; }
  x = __shfl_xor_sync(0xffffffffu, upper ? w[0] : w[2], 2);
  y = __shfl_xor_sync(0xffffffffu, upper ? w[1] : w[3], 2);
  if (upper) { w[0] = x; w[1] = y; } else { w[2] = x; w[3] = y; }
}

__device__ __forceinline__ void storeFloat(float *row, const float (&o)[OUTS], int which, float by, int lane) {
#pragma unroll
  for (int j = 0; j < HEAD_DIM / 8; j++)
    *reinterpret_cast<float2 *>(row + 8 * j + 2 * (lane & 3)) =
        make_float2(o[4 * j + 2 * which] * by, o[4 * j + 2 * which + 1] * by);
}

__device__ __forceinline__ void storeItem(const Attention &a, const float (&o)[OUTS], const Rows &rows, int tile,
                                          int slot, int rowInTile, int lane, float unit) {
  const int head = tile / a.queryTiles;
  const int token0 = (tile % a.queryTiles) * ROWS + rowInTile;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float sum = quadSum(rows.sum[r]);
    const float by = sum > 0.0f ? 1.0f / sum : 0.0f;
    const float logSum = sum > 0.0f ? rows.top[r] * unit * LN2 + logf(sum) : NEG_INF;
    const int token = token0 + 8 * r;
    const bool live = token < a.queries;
    if (slot >= 0) {
      const long long part = static_cast<long long>(slot) * ROWS + rowInTile + 8 * r;
      if (live) storeFloat(a.partOut + part * HEAD_DIM, o, r, by, lane);
      if (live && (lane & 3) == 0) a.partLogSum[part] = logSum;
      continue;
    }
    if (live && a.logSum && (lane & 3) == 0) a.logSum[static_cast<long long>(head) * a.queries + token] = logSum;
    const long long at = head * a.outHead + token * a.outToken;
    if (OUT_F32) {
      if (live) storeFloat(static_cast<float *>(a.out) + at, o, r, by, lane);
      continue;
    }
    bf16 *out = static_cast<bf16 *>(a.out) + at;
#pragma unroll
    for (int g = 0; g < HEAD_DIM / 32; g++) {
      u32 w[4];
#pragma unroll
      for (int t = 0; t < 4; t++)
        w[t] = packBf16(o[4 * (4 * g + t) + 2 * r] * by, o[4 * (4 * g + t) + 2 * r + 1] * by);
      quadTranspose(w, lane);
      if (live) *reinterpret_cast<uint4 *>(out + 8 * (4 * g + (lane & 3))) = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

__device__ __forceinline__ float warpMax(float x) {
#pragma unroll
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
  return x;
}
__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

// Joins the pieces of split tiles: one warp a row, grid = ceil((tiles - whole) * ROWS / 8), 256 threads. A tile has at most
// 32 pieces; their log-sums lie in the lanes.
extern "C" __global__ void __launch_bounds__(256) attend_merge(const __grid_constant__ Attention a) {
  const int lane = threadIdx.x & 31;
  const int rest = a.heads * a.queryTiles - a.whole;
  const int row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rest * ROWS) return;
  const int t = row / ROWS, tile = a.whole + t;
  const int head = tile / a.queryTiles;
  const int token = (tile % a.queryTiles) * ROWS + row % ROWS;
  if (token >= a.queries) return;
  const int first = t * a.pieces / rest + t, count = ((t + 1) * a.pieces - 1) / rest + t + 1 - first;
  const long long at = static_cast<long long>(first) * ROWS + row % ROWS;
  const float mine = lane < count ? a.partLogSum[at + lane * ROWS] : NEG_INF;
  const float top = warpMax(mine);
  const float weight = mine > NEG_INF ? exp2Fast((mine - top) * LOG2E) : 0.0f;
  const float sum = warpSum(weight);
  constexpr int N = HEAD_DIM / 32;
  struct alignas(4 * N) Columns { float x[N]; };
  Columns x = {};
  const Columns *part = reinterpret_cast<const Columns *>(a.partOut + at * HEAD_DIM) + lane;
#pragma unroll 4
  for (int j = 0; j < count; j++) {
    const float w = __shfl_sync(0xffffffffu, weight, j);
    const Columns p = part[j * ROWS * 32];
#pragma unroll
    for (int i = 0; i < N; i++) x.x[i] = fmaf(w, p.x[i], x.x[i]);
  }
  const float by = sum > 0.0f ? 1.0f / sum : 0.0f;
  if (a.logSum && lane == 0)
    a.logSum[static_cast<long long>(head) * a.queries + token] = sum > 0.0f ? top + logf(sum) : NEG_INF;
  const long long to = head * a.outHead + token * a.outToken + lane * N;
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    if (OUT_F32)
      *reinterpret_cast<float2 *>(static_cast<float *>(a.out) + to + i) = make_float2(x.x[i] * by, x.x[i + 1] * by);
    else
      *reinterpret_cast<u32 *>(static_cast<bf16 *>(a.out) + to + i) = packBf16(x.x[i] * by, x.x[i + 1] * by);
  }
}
