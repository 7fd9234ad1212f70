// Attention forward for Hopper (sm_90a): TMA in, wgmma, one softmax in fp32 registers.
//
// Given to NVRTC after attend_parts.cuh, whose defines choose the variant; README.md beside this file
// holds the contract. Further defines:
//   BLOCK_N    keys of one stage (128, 144, 160 or 176; lists need 128)
//   STAGES     key and value stages in flight
//
// A thread block is one loading warpgroup (one warp of it works) and two computing warpgroups of
// 64 query rows each. Work items (a query tile and a run of key stages) are handed out by the
// loading warp through shared memory, so that the next item's queries travel under this item's tail.

#ifndef BLOCK_N
#define BLOCK_N 128
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef SLACK
#define SLACK 8.0f  // in powers of two: how far a row's maximum may rise before its sums are rescaled
#endif
#ifndef PINGPONG
#define PINGPONG 1  // the two computing warpgroups take turns at the matrix unit
#endif

#ifndef LOAD_REGS
#define LOAD_REGS (BLOCK_N > 160 && !BIAS ? 24 : 40)  // of a loading thread; what is left of 64,512 computes
#endif

constexpr int HALVES = HEAD_DIM / 64;            // columns of 64 bf16 = one 128-byte swizzle row
constexpr u32 QUERY_BYTES = ROWS * HEAD_DIM * 2;
constexpr u32 STAGE_BYTES = BLOCK_N * HEAD_DIM * 2;
constexpr u32 COUNT_BYTES = BLOCK_N * 8;             // log-counts of a stage, each pair of keys written twice

static_assert(LIST_TILE == 0 || BLOCK_N == 128, "lists use stages of 128 keys");

struct alignas(64) TensorMap { u64 words[16]; };

struct alignas(16) Item { int tile, stages, valid, slot; };  // tile < 0: no more work

struct Layout {
  static constexpr u32 query = 0;
  static constexpr u32 keys = query + QUERY_BYTES;
  static constexpr u32 values = keys + STAGES * STAGE_BYTES;
  static constexpr u32 logCount = values + STAGES * STAGE_BYTES;
  static constexpr u32 item = logCount + (BIAS ? STAGES * COUNT_BYTES : 0);
  static constexpr u32 bars = item + 16;
  static constexpr u32 bytes = bars + 8 * (2 + 4 * STAGES);
};

// Barrier addresses, in order: query full, query empty, then per stage key full/empty, value full/empty.
struct Bars {
  u32 at;
  __device__ u32 queryFull() const { return at; }
  __device__ u32 queryEmpty() const { return at + 8; }
  __device__ u32 keyFull(int s) const { return at + 16 + 8 * s; }
  __device__ u32 keyEmpty(int s) const { return at + 16 + 8 * (STAGES + s); }
  __device__ u32 valueFull(int s) const { return at + 16 + 8 * (2 * STAGES + s); }
  __device__ u32 valueEmpty(int s) const { return at + 16 + 8 * (3 * STAGES + s); }
};

// ---- instructions ----

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
__device__ __forceinline__ void loadBox(u32 dst, const TensorMap *map, u32 bar, int column, int token, int head) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
               ::"r"(dst), "l"(map), "r"(bar), "r"(column), "r"(token), "r"(head) : "memory");
}
__device__ __forceinline__ void loadBulk(u32 dst, const void *src, u32 bytes, u32 bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(dst), "l"(src), "r"(bytes), "r"(bar) : "memory");
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
#define T8_10 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define T32 T8_0 T8_1 T8_2 T8_3
#define T64 T32 T8_4 T8_5 T8_6 T8_7
#define T72 T64 T8_8
#define T80 T72 T8_9
#define T88 T80 T8_10
#define R8(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]), "+f"(x[i + 7])
#define R32(x) R8(x, 0), R8(x, 8), R8(x, 16), R8(x, 24)
#define R64(x) R32(x), R8(x, 32), R8(x, 40), R8(x, 48), R8(x, 56)
#define R72(x) R64(x), R8(x, 64)
#define R80(x) R72(x), R8(x, 72)
#define R88(x) R80(x), R8(x, 80)

#if BLOCK_N == 128
#define QK_SHAPE "n128"
#define QK_TEXT T64
#define QK_REGS R64(s)
#define QK_ARGS "%64, %65, p"
#define QK_PRED "%66"
#elif BLOCK_N == 144
#define QK_SHAPE "n144"
#define QK_TEXT T72
#define QK_REGS R72(s)
#define QK_ARGS "%72, %73, p"
#define QK_PRED "%74"
#elif BLOCK_N == 160
#define QK_SHAPE "n160"
#define QK_TEXT T80
#define QK_REGS R80(s)
#define QK_ARGS "%80, %81, p"
#define QK_PRED "%82"
#elif BLOCK_N == 176
#define QK_SHAPE "n176"
#define QK_TEXT T88
#define QK_REGS R88(s)
#define QK_ARGS "%88, %89, p"
#define QK_PRED "%90"
#else
#error "BLOCK_N must be 128, 144, 160 or 176"
#endif
#if HEAD_DIM == 128
#define PV_SHAPE "n128"
#define PV_TEXT T64
#define PV_REGS R64(o)
#define PV_ARGS "{%64,%65,%66,%67}, %68"
#else
#define PV_SHAPE "n64"
#define PV_TEXT T32
#define PV_REGS R32(o)
#define PV_ARGS "{%32,%33,%34,%35}, %36"
#endif

constexpr int SCORES = BLOCK_N / 2;    // fp32 score registers of a thread
constexpr int WEIGHTS = BLOCK_N / 4;   // packed bf16 weight registers of a thread

// s = Q K^T (s += with BIAS) for one stage; 64 rows x BLOCK_N keys, HEAD_DIM/16 instructions.
__device__ __forceinline__ void issueScores(float (&s)[SCORES], u32 query, u32 key) {
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; k++) {
    const u64 q = MATRIX | (query + (k / 4) * (ROWS * 128 >> 4) + (k % 4) * 2);
    const u64 b = MATRIX | (key + (k / 4) * (BLOCK_N * 128 >> 4) + (k % 4) * 2);
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " QK_PRED ", 0;\n"
                 "wgmma.mma_async.sync.aligned.m64" QK_SHAPE "k16.f32.bf16.bf16 {" QK_TEXT "}, " QK_ARGS ", 1, 1, 0, 0;\n}"
                 : QK_REGS : "l"(q), "l"(b), "r"(BIAS ? 1 : k));
  }
}

// o += P V for one stage; weights from registers, values MN-major.
__device__ __forceinline__ void issueOutput(float (&o)[OUTS], const u32 (&p)[WEIGHTS], u32 value) {
#pragma unroll
  for (int k = 0; k < BLOCK_N / 16; k++) {
    const u64 b = MATRIX | (value + k * (16 * 128 >> 4));
    asm volatile("wgmma.mma_async.sync.aligned.m64" PV_SHAPE "k16.f32.bf16.bf16 {" PV_TEXT "}, " PV_ARGS ", 1, 1, 1, 1;"
                 : PV_REGS : "r"(p[4 * k]), "r"(p[4 * k + 1]), "r"(p[4 * k + 2]), "r"(p[4 * k + 3]), "l"(b));
  }
}

// ---- work ----

// The keys of one item: stages are counted from the last key tile backwards, so that only stage 0 can
// be partly filled and every later one needs no mask.
struct Run { int head, keys, first, last, total, begin, end, valid; };

__device__ __forceinline__ int listEnd(const Attention &a, int tile) { return tile < 0 ? 0 : a.tileEnds[tile]; }

__device__ __forceinline__ Run runOf(const Attention &a, int tile, int piece, int pieces) {
  Run r;
  r.head = tile / a.queryTiles;
  const int keys = r.keys = RAGGED ? a.lengths[r.head] : a.keys;
  r.begin = r.end = 0;
  if (LIST_TILE == 0) {
    r.total = (keys + BLOCK_N - 1) / BLOCK_N;
    r.valid = keys - (r.total - 1) * BLOCK_N;
  } else {
    r.begin = listEnd(a, tile - 1);
    r.end = listEnd(a, tile);
    const int count = r.end - r.begin;
    const int tail = count > 0 ? min(LIST_TILE, keys - a.tileKeys[r.end - 1] * LIST_TILE) : 0;
    r.total = LIST_TILE == 64 ? (count + 1) / 2 : count;
    r.valid = (LIST_TILE == 64 && (count & 1) == 0) ? 64 + tail : tail;
  }
  r.first = static_cast<int>(static_cast<long long>(r.total) * piece / pieces);
  r.last = static_cast<int>(static_cast<long long>(r.total) * (piece + 1) / pieces);
  if (r.first > 0) r.valid = BLOCK_N;
  return r;
}

// First key tokens of the two 64-row halves of a stage (the second is used by lists of 64 only).
__device__ __forceinline__ void stageTokens(const Attention &a, const Run &r, int i, int &low, int &high) {
  if (LIST_TILE == 0) {
    low = high = (r.total - 1 - i) * BLOCK_N;
  } else if (LIST_TILE == 128) {
    low = high = a.tileKeys[r.end - 1 - i] * 128;
  } else {
    const int odd = (r.end - r.begin) & 1;
    const int at = r.end - 1 - 2 * i + odd;  // entry of the upper half
    low = a.tileKeys[odd && i == 0 ? r.end - 1 : at - 1] * 64;
    high = odd && i == 0 ? low : a.tileKeys[at] * 64;
  }
}

__device__ __forceinline__ void loadRows(u32 dst, const TensorMap *map, u32 bar, int head, int low, int high) {
#pragma unroll
  for (int h = 0; h < HALVES; h++) {
    const u32 at = dst + h * BLOCK_N * 128;
    loadBox(at, map, bar, 64 * h, low, head);
    if (LIST_TILE == 64) loadBox(at + 64 * 128, map, bar, 64 * h, high, head);
  }
}

// Log-counts of one stage on their way from memory: pairs of keys, dealt to the lanes of the loading warp.
constexpr int PAIRS = (BLOCK_N / 2 + 31) / 32;
struct Counts { float x[2 * PAIRS]; };

__device__ __forceinline__ void fetchCounts(Counts &c, const Attention &a, const Run &r, int low, int high, int lane) {
  const float *row = a.logCount + r.head * a.logCountHead;
#pragma unroll
  for (int i = 0; i < 2 * PAIRS; i++) {
    const int column = 2 * (lane + 32 * (i / 2)) + i % 2;
    const int token = LIST_TILE == 64 && column >= 64 ? high + column - 64 : low + column;
    c.x[i] = column < BLOCK_N && token < r.keys ? row[token] : NEG_INF;
  }
}

// Writes them as the accumulators want them, in score units, and counts the warp in at the barrier.
__device__ __forceinline__ void storeCounts(const Counts &c, float perScore, u32 at, u32 bar, int lane) {
#pragma unroll
  for (int i = 0; i < PAIRS; i++) {
    const float b0 = c.x[2 * i] * perScore, b1 = c.x[2 * i + 1] * perScore;
    if (lane + 32 * i < BLOCK_N / 2)
      asm volatile("st.shared.v4.f32 [%0], {%1, %2, %1, %2};" ::"r"(at + 16 * (lane + 32 * i)), "f"(b0), "f"(b1) : "memory");
  }
  __syncwarp();
  if (lane == 0) barArrive(bar);
}

struct Ring {  // position in a ring of stages and the parity of its barriers
  int stage;
  u32 parity;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) { stage = 0; parity ^= 1; }
  }
};

// One stage of keys or values, once its place in the ring is free.
__device__ __forceinline__ void loadStage(Ring &ring, u32 empty, u32 full, u32 base, const TensorMap *map, int head, int low,
                                          int high, int lane) {
  barWait(empty + 8 * ring.stage, ring.parity);
  if (lane == 0) {
    barExpect(full + 8 * ring.stage, STAGE_BYTES);
    loadRows(base + ring.stage * STAGE_BYTES, map, full + 8 * ring.stage, head, low, high);
  }
}

__device__ __forceinline__ int takeItem(const Attention &a, int last, int lane) {
  if (!a.counter) return last < 0 ? blockIdx.x : last + gridDim.x;
  int at = 0;
  if (lane == 0) at = atomicAdd(a.counter, 1);
  return __shfl_sync(0xffffffffu, at, 0);
}

// Tells the computing warps what comes next and sends the queries there.
__device__ __forceinline__ void openItem(const Attention &a, const Run &r, int tile, int slot, const TensorMap *map, u32 smem,
                                         Bars bars, volatile Item *item) {
  item->tile = tile;
  item->stages = r.last - r.first;
  item->valid = r.valid;
  item->slot = slot;
  if (r.first == r.last) {
    barArrive(bars.queryFull());
    return;
  }
  barExpect(bars.queryFull(), QUERY_BYTES);
#pragma unroll
  for (int h = 0; h < HALVES; h++)
    loadBox(smem + Layout::query + h * ROWS * 128, map, bars.queryFull(), 64 * h, (tile % a.queryTiles) * ROWS, r.head);
}

// The loading warp: deals items, fills the rings. Keys run one stage ahead of values.
__device__ __forceinline__ void loadAll(const Attention &a, const TensorMap *queryMap, const TensorMap *keyMap,
                                        const TensorMap *valueMap, u32 smem, Bars bars, volatile Item *item, int lane) {
  const int tiles = a.heads * a.queryTiles;
  const int rest = tiles - a.whole;
  const int items = a.whole + rest * a.pieces;
  const float perScore = 1.0f / a.scale;
  Ring keys = {0, 1}, values = {0, 1};
  u32 queryParity = 1;
  Counts counts;
  for (int at = takeItem(a, -1, lane); at < items; at = takeItem(a, at, lane)) {
    const int slot = at - a.whole;  // negative for whole tiles
    const int tile = slot < 0 ? at : a.whole + slot % rest;
    const Run r = slot < 0 ? runOf(a, tile, 0, 1) : runOf(a, tile, slot / rest, a.pieces);
    int low = 0, high = 0, nextLow, nextHigh;
    if (r.first < r.last) stageTokens(a, r, r.first, low, high);
    if (BIAS) fetchCounts(counts, a, r, low, high, lane);
    barWait(bars.queryEmpty(), queryParity);
    queryParity ^= 1;
    if (lane == 0) openItem(a, r, tile, a.pieces > 1 ? slot : -1, queryMap, smem, bars, item);
    int lastLow = 0, lastHigh = 0;
    for (int i = r.first; i < r.last; i++) {
      loadStage(keys, bars.keyEmpty(0), bars.keyFull(0), smem + Layout::keys, keyMap, r.head, low, high, lane);
      if (BIAS)
        storeCounts(counts, perScore, smem + Layout::logCount + keys.stage * COUNT_BYTES, bars.keyFull(keys.stage), lane);
      keys.next();
      nextLow = low, nextHigh = high;
      if (i + 1 < r.last) stageTokens(a, r, i + 1, nextLow, nextHigh);
      if (BIAS) fetchCounts(counts, a, r, nextLow, nextHigh, lane);
      if (i > r.first) {
        loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, r.head, lastLow, lastHigh, lane);
        values.next();
      }
      lastLow = low, lastHigh = high;
      low = nextLow, high = nextHigh;
    }
    if (r.first < r.last) {
      loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, r.head, lastLow, lastHigh, lane);
      values.next();
    }
  }
  barWait(bars.queryEmpty(), queryParity);
  if (lane > 0) return;
  item->tile = -1;
  barArrive(bars.queryFull());
  if (a.counter && atomicAdd(a.counter + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    a.counter[0] = 0;  // the last block leaves the counters as it found them
    a.counter[1] = 0;
  }
}

// ---- softmax ----

// Starts the scores at their log-counts, in score units, so that the matrix unit adds the products to
// them: this runs while the warpgroup waits for its turn, not between product and softmax.
__device__ __forceinline__ void startScores(float (&s)[SCORES], u32 at, int lane) {
#pragma unroll
  for (int j = 0; j < BLOCK_N / 8; j++)
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(s[4 * j]), "=f"(s[4 * j + 1]), "=f"(s[4 * j + 2]), "=f"(s[4 * j + 3])
                 : "r"(at + 16 * (4 * j + (lane & 3))));
}

__device__ __forceinline__ void mask(float (&s)[SCORES], int lane, int valid) {
#pragma unroll
  for (int j = 0; j < BLOCK_N / 8; j++) {
    const int column = 8 * j + 2 * (lane & 3);
    if (column >= valid) s[4 * j] = s[4 * j + 2] = NEG_INF;
    if (column + 1 >= valid) s[4 * j + 1] = s[4 * j + 3] = NEG_INF;
  }
}

// Turns scores into weights exp2((s - top) * unit). Returns whether the outputs so far must be turned
// by rows.turn: only when a row's maximum rose by more than SLACK, since any `top` gives the same
// quotient and 2^SLACK is far from overflow.
template <bool FIRST> __device__ __forceinline__ bool weigh(float (&s)[SCORES], Rows &rows, float unit) {
  float a0 = s[0], a1 = s[1], b0 = s[2], b1 = s[3];
#pragma unroll
  for (int j = 1; j < BLOCK_N / 8; j++) {
    a0 = fmaxf(a0, s[4 * j]);
    a1 = fmaxf(a1, s[4 * j + 1]);
    b0 = fmaxf(b0, s[4 * j + 2]);
    b1 = fmaxf(b1, s[4 * j + 3]);
  }
  float top0 = quadMax(fmaxf(a0, a1)), top1 = quadMax(fmaxf(b0, b1));
  bool turned = false;
  if (FIRST) {
    rows.top[0] = top0;
    rows.top[1] = top1;
    rows.sum[0] = rows.sum[1] = 0.0f;
  } else {
    top0 = fmaxf(top0, rows.top[0]);
    top1 = fmaxf(top1, rows.top[1]);
    const bool rose = (top0 - rows.top[0]) * unit > SLACK || (top1 - rows.top[1]) * unit > SLACK;
    turned = __any_sync(0xffffffffu, rose);
    if (turned) {
      rows.turn[0] = top0 == NEG_INF ? 1.0f : exp2Fast((rows.top[0] - top0) * unit);
      rows.turn[1] = top1 == NEG_INF ? 1.0f : exp2Fast((rows.top[1] - top1) * unit);
      rows.sum[0] *= rows.turn[0];
      rows.sum[1] *= rows.turn[1];
      rows.top[0] = top0;
      rows.top[1] = top1;
    }
  }
  const float off0 = rows.top[0] == NEG_INF ? 0.0f : -rows.top[0] * unit;
  const float off1 = rows.top[1] == NEG_INF ? 0.0f : -rows.top[1] * unit;
  float sum00 = 0.0f, sum01 = 0.0f, sum10 = 0.0f, sum11 = 0.0f;
#pragma unroll
  for (int j = 0; j < BLOCK_N / 8; j++) {
    s[4 * j] = exp2Fast(fmaf(s[4 * j], unit, off0));
    s[4 * j + 1] = exp2Fast(fmaf(s[4 * j + 1], unit, off0));
    s[4 * j + 2] = exp2Fast(fmaf(s[4 * j + 2], unit, off1));
    s[4 * j + 3] = exp2Fast(fmaf(s[4 * j + 3], unit, off1));
    sum00 += s[4 * j];
    sum01 += s[4 * j + 1];
    sum10 += s[4 * j + 2];
    sum11 += s[4 * j + 3];
  }
  rows.sum[0] += sum00 + sum01;
  rows.sum[1] += sum10 + sum11;
  return turned;
}

__device__ __forceinline__ void packWeights(u32 (&p)[WEIGHTS], const float (&s)[SCORES]) {
#pragma unroll
  for (int i = 0; i < WEIGHTS; i++) p[i] = packBf16(s[2 * i], s[2 * i + 1]);
}

// ---- computing warpgroup ----

// Rows past the last key may hold anything, and 0 x NaN is NaN: clear them before they are multiplied.
__device__ __forceinline__ void clearTail(u32 stageAt, int valid, int thread, int group) {
  for (int i = thread; i < (BLOCK_N - valid) * 8 * HALVES; i += 128) {
    const int half = i / ((BLOCK_N - valid) * 8), rest = i % ((BLOCK_N - valid) * 8);
    const u32 at = stageAt + half * BLOCK_N * 128 + valid * 128 + rest * 16;
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  namedSync(3 + group, 128);
}

__device__ __forceinline__ void computeAll(const Attention &a, u32 smem, Bars bars, const volatile Item *item,
                                           int group, int thread) {
  const int lane = thread & 31;
  const int rowInTile = 64 * group + 16 * (thread / 32) + lane / 4;
  const float unit = a.scale * LOG2E;
  const u32 logCount = smem + Layout::logCount;
  const u32 query = matrixAt(smem + Layout::query + group * 64 * 128, 16);
  const u32 keyBase = matrixAt(smem + Layout::keys, 16);
  const u32 valueBase = matrixAt(smem + Layout::values, BLOCK_N * 128);
  Ring keys = {0, 0}, values = {0, 0};
  u32 queryParity = 0;
  float s[SCORES], o[OUTS];
  u32 p[WEIGHTS];
  Rows rows;
  if (PINGPONG && group == 1) namedArrive(1, 256);
  for (;;) {
    barWait(bars.queryFull(), queryParity);
    queryParity ^= 1;
    const int tile = __shfl_sync(0xffffffffu, item->tile, 0), stages = __shfl_sync(0xffffffffu, item->stages, 0);
    const int valid = __shfl_sync(0xffffffffu, item->valid, 0), slot = __shfl_sync(0xffffffffu, item->slot, 0);
    if (tile < 0) break;
#pragma unroll
    for (int i = 0; i < OUTS; i++) o[i] = 0.0f;
    rows.top[0] = rows.top[1] = NEG_INF;
    rows.sum[0] = rows.sum[1] = 0.0f;
    if (stages > 0) {
      barWait(bars.keyFull(keys.stage), keys.parity);
      if (BIAS) {
        startScores(s, logCount + keys.stage * COUNT_BYTES, lane);
        pin(s);
      }
      mmaFence();
      issueScores(s, query, keyBase + keys.stage * (STAGE_BYTES >> 4));
      mmaCommit();
      mmaWait<0>();
      pin(s);
      __syncwarp();
      if (lane == 0) barArrive(bars.keyEmpty(keys.stage));
      keys.next();
      if (valid < BLOCK_N) {
        mask(s, lane, valid);
        if (RAGGED) {
          barWait(bars.valueFull(values.stage), values.parity);
          clearTail(smem + Layout::values + values.stage * STAGE_BYTES, valid, thread, group);
        }
      }
      weigh<true>(s, rows, unit);
      packWeights(p, s);
      for (int i = 1; i < stages; i++) {
        barWait(bars.keyFull(keys.stage), keys.parity);
        if (BIAS) {
          startScores(s, logCount + keys.stage * COUNT_BYTES, lane);
          pin(s);
          __syncwarp();
        }
        if (PINGPONG) namedSync(1 + group, 256);
        pin(o);
        pin(p);
        mmaFence();
        issueScores(s, query, keyBase + keys.stage * (STAGE_BYTES >> 4));
        mmaCommit();
        barWait(bars.valueFull(values.stage), values.parity);
        issueOutput(o, p, valueBase + values.stage * (STAGE_BYTES >> 4));
        mmaCommit();
        if (PINGPONG) namedArrive(2 - group, 256);
        mmaWait<1>();
        pin(s);
        if (lane == 0) barArrive(bars.keyEmpty(keys.stage));
        keys.next();
        const bool turned = weigh<false>(s, rows, unit);
        pin(s);  // else the compiler moves the exponentials behind the wait
        mmaWait<0>();
        pin(o);
        pin(p);
        if (lane == 0) barArrive(bars.valueEmpty(values.stage));
        values.next();
        if (turned) {
#pragma unroll
          for (int j = 0; j < OUTS; j++) o[j] *= rows.turn[(j >> 1) & 1];
        }
        packWeights(p, s);
      }
    }
    __syncwarp();
    if (lane == 0) barArrive(bars.queryEmpty());
    if (stages > 0) {
      barWait(bars.valueFull(values.stage), values.parity);
      pin(o);
      pin(p);
      mmaFence();
      issueOutput(o, p, valueBase + values.stage * (STAGE_BYTES >> 4));
      mmaCommit();
      mmaWait<0>();
      pin(o);
      if (lane == 0) barArrive(bars.valueEmpty(values.stage));
      values.next();
    }
    storeItem(a, o, rows, tile, slot, rowInTile, lane, unit);
  }
  if (PINGPONG && group == 0) namedSync(1, 256);
}

extern "C" __global__ void __launch_bounds__(384, 1)
    attend(const __grid_constant__ TensorMap queryMap, const __grid_constant__ TensorMap keyMap,
           const __grid_constant__ TensorMap valueMap, const __grid_constant__ Attention a) {
  extern __shared__ unsigned char raw[];
  const u32 smem = (sharedAddress(raw) + 1023) & ~1023u;
  unsigned char *aligned = raw + (smem - sharedAddress(raw));
  volatile Item *item = reinterpret_cast<volatile Item *>(aligned + Layout::item);
  const Bars bars = {smem + Layout::bars};
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    barInit(bars.queryFull(), 1);
    barInit(bars.queryEmpty(), 8);
    for (int s = 0; s < STAGES; s++) {
      barInit(bars.keyFull(s), BIAS ? 2 : 1);
      barInit(bars.keyEmpty(s), 8);
      barInit(bars.valueFull(s), 1);
      barInit(bars.valueEmpty(s), 8);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  if (warp < 4) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(LOAD_REGS));
    if (warp == 0) loadAll(a, &queryMap, &keyMap, &valueMap, smem, bars, item, threadIdx.x);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((504 - LOAD_REGS) / 2));
    computeAll(a, smem, bars, item, warp / 4 - 1, threadIdx.x % 128);
  }
}
