// Softmax attention in float for every variant of compute.Attention, see README.md. HEAD_DIM and PAIR, whether there is a bias for
// each pair of query and key, are defined by the launch side.
struct AttendAnyArgs {
  void* dst;
  const void *query, *keys, *values;
  const float* logCount;   // [heads, keys] or null
  const int* lengths;      // [heads] or null
  const int *tileKeys, *tileEnds;
  float* lse;              // [heads, queries] or null
  u32* fault;
  i64 dstHead, dstRow, queryHead, queryRow, keyHead, keyRow, valueHead, valueRow, logHead, lseHead;
  u32 queries, keyCount;
  u32 queryTile, keyTile, queryTiles, blocksPerTile, entries;
  u32 dstHalf, queryHalf, cacheHalf;  // 1: bf16
  float scale;
  u32 vec;  // rows of query, keys and values may be read 16 bytes at a time
  const float* pair;  // with PAIR: a bias [heads, queries, keys]
  i64 pairHead, pairRow;
  u32 byTile;    // logCount is [heads * queryTiles, keys]
  u32 pieceKeys; // keys of a piece, a multiple of BK; 0: all, and no pieces
  float* partOut;     // [pieces, heads, queries, HEAD_DIM]: outputs of the pieces, not yet divided
  float2* partSums;   // [pieces, heads, queries]: largest logit, and sum of exponentials below it
};
static_assert(sizeof(AttendAnyArgs) == 256, "AttendAnyArgs is mirrored by attendAnyArgs in attendany.go");

#define BQ 64                // queries of a thread block
#define BK 64                // keys of a step
#define LD (BQ + 4)          // row length of transposed tiles: 16-byte rows without bank conflicts
#define COLS (HEAD_DIM / 16) // output columns of a thread, 16 apart
#define INF __int_as_float(0x7f800000)

__device__ __forceinline__ void load8any(float (&v)[8], const void* p, i64 at, u32 half, u32 vec) {
  if (!vec) {
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = half ? widen(((const bf16*)p)[at + j]) : ((const float*)p)[at + j];
  } else if (half) {
    load8(v, (const bf16*)p + at);
  } else {
    load8(v, (const float*)p + at);
  }
}

// loadRows brings up to 64 rows of HEAD_DIM elements to shared memory, transposed ([dim][row]) or not; missing rows are 0.
template <bool TRANSPOSED>
__device__ __forceinline__ void loadRows(float* tile, const void* src, i64 stride, u32 first, u32 limit, u32 half, u32 vec) {
  u32 r = threadIdx.x % 64;
  for (u32 c = threadIdx.x / 64; c < HEAD_DIM / 8; c += 4) {
    float v[8] = {};
    if (first + r < limit) load8any(v, src, (i64)(first + r) * stride + c * 8, half, vec);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      if constexpr (TRANSPOSED) tile[(c * 8 + j) * LD + r] = v[j];
      else tile[r * (HEAD_DIM + 1) + c * 8 + j] = v[j];
    }
  }
}

// Block: 256 threads as 16 x 16; thread (tx, ty) owns queries 4ty..4ty+3 and, in turn, keys 4tx..4tx+3 of the scores and
// columns tx, tx+16, ... of the output.
extern "C" __global__ void __launch_bounds__(256) attendany(const __grid_constant__ AttendAnyArgs a) {
  extern __shared__ float4 shared[];
  float* qs = (float*)shared;                 // [HEAD_DIM][LD]
  float* kv = qs + HEAD_DIM * LD;             // keys [HEAD_DIM][LD], then values [64][HEAD_DIM + 1]
  float* ps = kv + (HEAD_DIM * LD > 64 * (HEAD_DIM + 1) ? HEAD_DIM * LD : 64 * (HEAD_DIM + 1));  // [64][LD]: [query][key]
  u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16, head = blockIdx.y;
  u32 tile = blockIdx.x / a.blocksPerTile;
  u32 q0 = tile * a.queryTile + (blockIdx.x % a.blocksPerTile) * BQ;
  u32 qEnd = min(a.queries, (tile + 1) * a.queryTile);
  if (q0 >= qEnd) return;

  u32 length = a.keyCount;
  if (a.lengths != nullptr) length = (u32)min((int)length, max(a.lengths[head], 0));
  u32 from = 0;
  if (a.pieceKeys > 0) {
    from = blockIdx.z * a.pieceKeys;
    length = min(length, from + a.pieceKeys);
  }
  int e = 0, end = 1;
  if (a.tileEnds != nullptr) {
    u32 i = head * a.queryTiles + tile;
    e = i == 0 ? 0 : a.tileEnds[i - 1];
    end = a.tileEnds[i];
    if (e < 0 || end < e || (u32)end > a.entries) {
      *a.fault = FAULT_TILES;
      e = end = 0;
    }
  }
  const char* query = (const char*)a.query + head * a.queryHead * (a.queryHalf ? 2 : 4);
  const char* keys = (const char*)a.keys + head * a.keyHead * (a.cacheHalf ? 2 : 4);
  const char* values = (const char*)a.values + head * a.valueHead * (a.cacheHalf ? 2 : 4);
  loadRows<true>(qs, query, a.queryRow, q0, qEnd, a.queryHalf, a.vec);

  float o[4][COLS], top[4], sum[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    top[i] = -INF, sum[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < COLS; c++) o[i][c] = 0.0f;
  }

  for (; e < end; e++) {
    u32 lo = from, hi = length;
    if (a.tileEnds != nullptr) {
      u64 first = (u64)(u32)a.tileKeys[e] * a.keyTile;
      if (first >= a.keyCount) {
        *a.fault = FAULT_TILES;
        continue;
      }
      lo = (u32)first;
      hi = (u32)min((u64)length, first + a.keyTile);
    }
    for (u32 k0 = lo; k0 < hi; k0 += BK) {
      __syncthreads();
      loadRows<true>(kv, keys, a.keyRow, k0, hi, a.cacheHalf, a.vec);
      __syncthreads();
      float s[4][4] = {};
#pragma unroll 8
      for (int d = 0; d < HEAD_DIM; d++) {
        float4 q = *(const float4*)(qs + d * LD + ty * 4), k = *(const float4*)(kv + d * LD + tx * 4);
        float qv[4] = {q.x, q.y, q.z, q.w}, kk[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++) s[i][j] += qv[i] * kk[j];
      }
      float bias[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32 key = k0 + tx * 4 + j;
        bias[j] = key >= hi ? -INF : (a.logCount != nullptr ? a.logCount[(a.byTile ? head * a.queryTiles + tile : head) * a.logHead + key] : 0.0f);
      }
      float shrink[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float m = top[i];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          // A hidden key stays hidden whatever its dot product is (an infinite or absent one would give NaN).
#if PAIR
          u32 row = min(q0 + ty * 4 + i, qEnd - 1), key = min(k0 + tx * 4 + j, hi - 1);
          float b = bias[j] + a.pair[head * a.pairHead + (i64)row * a.pairRow + key];
#else
          float b = bias[j];
#endif
          s[i][j] = b == -INF ? -INF : s[i][j] * a.scale + b;
          m = fmaxf(m, s[i][j]);
        }
#pragma unroll
        for (int w = 8; w > 0; w >>= 1) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, w));
        shrink[i] = top[i] == -INF ? 0.0f : expf(top[i] - m);
        top[i] = m;
        float part = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float p = s[i][j] == -INF ? 0.0f : expf(s[i][j] - m);
          part += p;
          s[i][j] = p;
        }
#pragma unroll
        for (int w = 8; w > 0; w >>= 1) part += __shfl_xor_sync(0xffffffffu, part, w);
        sum[i] = sum[i] * shrink[i] + part;
        *(float4*)(ps + (ty * 4 + i) * LD + tx * 4) = make_float4(s[i][0], s[i][1], s[i][2], s[i][3]);
      }
      __syncthreads();
      loadRows<false>(kv, values, a.valueRow, k0, hi, a.cacheHalf, a.vec);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int c = 0; c < COLS; c++) o[i][c] *= shrink[i];
      for (int k = 0; k < BK; k += 4) {
        float p[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float4 v = *(const float4*)(ps + (ty * 4 + i) * LD + k);
          p[i][0] = v.x, p[i][1] = v.y, p[i][2] = v.z, p[i][3] = v.w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int c = 0; c < COLS; c++) {
            float v = kv[(k + j) * (HEAD_DIM + 1) + tx + 16 * c];
#pragma unroll
            for (int i = 0; i < 4; i++) o[i][c] += p[i][j] * v;
          }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 4; i++) {
    u32 q = q0 + ty * 4 + i;
    if (q >= qEnd) continue;
    if (a.pieceKeys > 0) {
      i64 at = ((i64)blockIdx.z * gridDim.y + head) * a.queries + q;
#pragma unroll
      for (int c = 0; c < COLS; c++) a.partOut[at * HEAD_DIM + tx + 16 * c] = o[i][c];
      if (tx == 0) a.partSums[at] = make_float2(top[i], sum[i]);
      continue;
    }
    float inv = sum[i] > 0.0f || sum[i] != sum[i] ? 1.0f / sum[i] : 0.0f;
#pragma unroll
    for (int c = 0; c < COLS; c++) {
      i64 at = head * a.dstHead + q * a.dstRow + tx + 16 * c;
      if (a.dstHalf) put((bf16*)a.dst + at, o[i][c] * inv);
      else put((float*)a.dst + at, o[i][c] * inv);
    }
    if (a.lse != nullptr && tx == 0) a.lse[head * a.lseHead + q] = sum[i] > 0.0f ? top[i] + logf(sum[i]) : (sum[i] == 0.0f ? -INF : sum[i]);
  }
}

struct AttendJoinArgs {
  void* dst;
  float* lse;  // or null
  const float* partOut;
  const float2* partSums;
  i64 dstHead, dstRow, lseHead;
  u32 queries, pieces, dstHalf, pad;
};
static_assert(sizeof(AttendJoinArgs) == 72, "AttendJoinArgs is mirrored by attendJoinArgs in attendany.go");

// attendany_join sums what the pieces of the keys came to, in their order. A block has a query of a head, a thread a column.
extern "C" __global__ void __launch_bounds__(HEAD_DIM) attendany_join(const __grid_constant__ AttendJoinArgs a) {
  u32 q = blockIdx.x, head = blockIdx.y, c = threadIdx.x;
  i64 at = (i64)head * a.queries + q, step = (i64)gridDim.y * a.queries;
  float top = -INF, sum = 0.0f, out = 0.0f;
  for (u32 p = 0; p < a.pieces; p++) top = fmaxf(top, a.partSums[at + p * step].x);
  for (u32 p = 0; p < a.pieces; p++) {
    float2 part = a.partSums[at + p * step];
    if (part.y == 0.0f) continue;                                // it saw no key
    float share = part.x == top ? 1.0f : expf(part.x - top);     // also where logits are no numbers
    sum += share * part.y;
    out += share * a.partOut[(at + p * step) * HEAD_DIM + c];
  }
  float inv = sum > 0.0f || sum != sum ? 1.0f / sum : 0.0f;
  i64 to = head * a.dstHead + q * a.dstRow + c;
  if (a.dstHalf) put((bf16*)a.dst + to, out * inv);
  else put((float*)a.dst + to, out * inv);
  if (a.lse != nullptr && c == 0) a.lse[head * a.lseHead + q] = sum > 0.0f ? top + logf(sum) : (sum == 0.0f ? -INF : sum);
}
