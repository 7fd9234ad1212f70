// Attention forward for Hopper (sm_90a): TMA in, wgmma, one softmax in fp32 registers.
//
// Given to NVRTC after attend_parts.cuh and attend_hopper.cuh, whose defines choose the variant; README.md
// beside this file holds the contract. Further defines:
//   BLOCK_N    keys of one stage: 128, or 160 (a little faster with BIAS over many keys); lists need 128
//   STAGES     key and value stages in flight
//
// A thread block is one loading warpgroup (one warp of it works) and two computing warpgroups of
// 64 query rows each. Work items (a query tile and a run of key stages) are handed out by the
// loading warp through shared memory, so that the next item's queries travel under this item's tail.

constexpr int HALVES = HEAD_DIM / 64;            // columns of 64 bf16 = one 128-byte swizzle row
constexpr u32 QUERY_BYTES = ROWS * HEAD_DIM * 2;
constexpr u32 STAGE_BYTES = BLOCK_N * HEAD_DIM * 2;
constexpr u32 COUNT_BYTES = BLOCK_N * 32;            // log-counts of a stage: a matrix of 16 columns, 3 used

static_assert(LIST_TILE == 0 || BLOCK_N == 128, "lists use stages of 128 keys");

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

// ---- work ----

// The keys of one item: stages are counted from the last key tile backwards, so that only stage 0 can
// be partly filled and every later one needs no mask.
struct Run { int head, counts, keys, first, last, total, begin, end, valid; };

__device__ __forceinline__ int listEnd(const Attention &a, int tile) { return tile < 0 ? 0 : a.tileEnds[tile]; }

__device__ __forceinline__ Run runOf(const Attention &a, int tile, int piece, int pieces) {
  Run r;
  r.head = tile / a.queryTiles;
  r.counts = BY_TILE ? tile : r.head;
  const int keys = r.keys = RAGGED ? a.lengths[r.head] : a.keys;
  r.begin = r.end = 0;
  if (LIST_TILE == 0) {
    r.total = (keys + BLOCK_N - 1) / BLOCK_N;
    r.valid = keys - (r.total - 1) * BLOCK_N;
  } else {
    r.begin = listEnd(a, tile - 1);
    r.end = listEnd(a, tile);
    while (RAGGED && r.end > r.begin && a.tileKeys[r.end - 1] * LIST_TILE >= keys) r.end--;  // only the last stage is masked
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

struct Tokens { int low, high; };  // first keys of a stage's two 64-row halves; only lists of 64 use the second

__device__ __forceinline__ Tokens stageTokens(const Attention &a, const Run &r, int i) {
  if (LIST_TILE == 0) return {(r.total - 1 - i) * BLOCK_N, 0};
  if (LIST_TILE == 128) return {a.tileKeys[r.end - 1 - i] * 128, 0};
  const int odd = (r.end - r.begin) & 1;
  if (odd && i == 0) return {a.tileKeys[r.end - 1] * 64, a.tileKeys[r.end - 1] * 64};
  const int at = r.end - 1 - 2 * i + odd;  // entry of the upper half
  return {a.tileKeys[at - 1] * 64, a.tileKeys[at] * 64};
}

__device__ __forceinline__ void loadRows(u32 dst, const TensorMap *map, u32 bar, int head, Tokens t) {
#pragma unroll
  for (int h = 0; h < HALVES; h++) {
    const u32 at = dst + h * BLOCK_N * 128;
    loadBox(at, map, bar, 64 * h, t.low, head);
    if (LIST_TILE == 64) loadBox(at + 64 * 128, map, bar, 64 * h, t.high, head);
  }
}

// Log-counts of one stage on their way from memory, dealt to the lanes of the loading warp. They enter the
// scores through the matrix unit: a row of three bf16 parts (24 bits, so nothing is lost) times a column of
// ones. Adding them in registers instead costs shared-memory reads, which the matrix unit needs itself.
constexpr int SHARE = (BLOCK_N + 31) / 32;
struct Counts { float x[SHARE]; };

__device__ __forceinline__ void fetchCounts(Counts &c, const Attention &a, const Run &r, Tokens t, int lane) {
  const float *row = a.logCount + r.counts * a.logCountHead;
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    const int column = lane + 32 * i;
    const int token = LIST_TILE == 64 && column >= 64 ? t.high + column - 64 : t.low + column;
    c.x[i] = column < BLOCK_N && token < r.keys ? row[token] : NEG_INF;
  }
}

// Takes the upper 16 bits off x as bf16 and leaves the rest; an infinity leaves nothing.
__device__ __forceinline__ u32 takePart(float &x) {
  const u32 part = packBf16(x, 0.0f);
  const float rest = x - __int_as_float(part << 16);
  x = fabsf(x) < 1e38f ? rest : 0.0f;
  return part;
}

// Writes the parts, in score units, and counts the warp in at the barrier.
__device__ __forceinline__ void storeCounts(const Counts &c, float perScore, u32 at, u32 bar, int lane) {
#pragma unroll
  for (int i = 0; i < SHARE; i++) {
    float x = fmaxf(c.x[i] * perScore, NEG_INF);
    const u32 first = takePart(x), second = takePart(x), third = takePart(x);
    if (lane + 32 * i < BLOCK_N)
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %3};" ::"r"(at + 16 * (lane + 32 * i)), "r"(first | second << 16),
                   "r"(third), "r"(0) : "memory");
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
  if (lane == 0) barArrive(bar);
}

// Columns 8 to 15 of the log-count matrices stay zero.
__device__ __forceinline__ void clearCounts(u32 at, int lane) {
  for (int i = lane; i < STAGES * BLOCK_N; i += 32)
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at + i / BLOCK_N * COUNT_BYTES + (BLOCK_N + i % BLOCK_N) * 16),
                 "r"(0) : "memory");
}

struct Ring {  // position in a ring of stages and the parity of its barriers
  int stage;
  u32 parity;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) { stage = 0; parity ^= 1; }
  }
};

// One stage of keys or values, once its place in the ring is free.
__device__ __forceinline__ void loadStage(Ring &ring, u32 empty, u32 full, u32 stages, const TensorMap *map, int head,
                                          Tokens t, int lane) {
  barWait(empty + 8 * ring.stage, ring.parity);
  if (lane == 0) {
    barExpect(full + 8 * ring.stage, STAGE_BYTES);
    loadRows(stages + ring.stage * STAGE_BYTES, map, full + 8 * ring.stage, head, t);
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
  if (BIAS) clearCounts(smem + Layout::logCount, lane);
  for (int at = takeItem(a, -1, lane); at < items; at = takeItem(a, at, lane)) {
    const int slot = at - a.whole;  // negative for whole tiles
    const int tile = slot < 0 ? at : a.whole + slot % rest;
    const Run r = slot < 0 ? runOf(a, tile, 0, 1) : runOf(a, tile, slot / rest, a.pieces);
    Tokens now = {0, 0}, next = {0, 0}, last = {0, 0};  // list entries are read a stage before they are needed
    if (r.first < r.last) now = stageTokens(a, r, r.first);
    if (r.first + 1 < r.last) next = stageTokens(a, r, r.first + 1);
    if (BIAS) fetchCounts(counts, a, r, now, lane);
    barWait(bars.queryEmpty(), queryParity);
    queryParity ^= 1;
    if (lane == 0) openItem(a, r, tile, a.pieces > 1 ? slot : -1, queryMap, smem, bars, item);
    for (int i = r.first; i < r.last; i++) {
      loadStage(keys, bars.keyEmpty(0), bars.keyFull(0), smem + Layout::keys, keyMap, r.head, now, lane);
      if (BIAS)
        storeCounts(counts, perScore, smem + Layout::logCount + keys.stage * COUNT_BYTES, bars.keyFull(keys.stage), lane);
      keys.next();
      if (BIAS) fetchCounts(counts, a, r, next, lane);
      if (i > r.first) {
        loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, r.head, last, lane);
        values.next();
      }
      last = now;
      now = next;
      if (i + 2 < r.last) next = stageTokens(a, r, i + 2);
    }
    if (r.first < r.last) {
      loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, r.head, last, lane);
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

// s = log-counts + Q K^T for one stage; 64 rows x BLOCK_N keys. `ones` is this lane's part of a matrix
// whose first three columns are one.
__device__ __forceinline__ void issueScores(float (&s)[SCORES], u32 query, u32 key, u32 count, u32 ones) {
  if (BIAS) scoreStep(s, ones, ones, 0, 0, COUNTS | count, 0);
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; k++) {
    const u64 a = MATRIX | (query + (k / 4) * (ROWS * 128 >> 4) + (k % 4) * 2);
    const u64 b = MATRIX | (key + (k / 4) * (BLOCK_N * 128 >> 4) + (k % 4) * 2);
    scoreStep(s, a, b, BIAS ? 1 : k);
  }
}

// o += P V for one stage; weights from registers, values MN-major.
__device__ __forceinline__ void issueOutput(float (&o)[OUTS], const u32 (&p)[WEIGHTS], u32 value) {
#pragma unroll
  for (int k = 0; k < BLOCK_N / 16; k++)
    outputStep(o, p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3], MATRIX | (value + k * (16 * 128 >> 4)));
}

__device__ __forceinline__ void computeAll(const Attention &a, u32 smem, Bars bars, const volatile Item *item,
                                           int group, int thread) {
  const int lane = thread & 31;
  const int rowInTile = 64 * group + 16 * (thread / 32) + lane / 4;
  const float unit = a.scale * LOG2E;
  const u32 counts = matrixAt(smem + Layout::logCount, BLOCK_N * 16);
  const u32 ones = (lane & 3) == 0 ? 0x3f803f80u : (lane & 3) == 1 ? 0x3f80u : 0u;
  const u32 query = matrixAt(smem + Layout::query + group * 64 * 128, 16);
  const u32 keyStages = matrixAt(smem + Layout::keys, 16);
  const u32 valueStages = matrixAt(smem + Layout::values, BLOCK_N * 128);
  Ring keys = {0, 0}, values = {0, 0};
  u32 queryParity = 0;
  float s[SCORES], o[OUTS];
  u32 p[WEIGHTS];
  Rows rows;
  if (group == 1) namedArrive(1, 256);  // the groups take turns at the matrix unit; group 0 begins
  for (;;) {
    barWait(bars.queryFull(), queryParity);
    queryParity ^= 1;
    Item mine = {0, 0, 0, 0};
    if (lane == 0) mine = {item->tile, item->stages, item->valid, item->slot};  // by the lane that gives the place back
    const int tile = __shfl_sync(0xffffffffu, mine.tile, 0), stages = __shfl_sync(0xffffffffu, mine.stages, 0);
    const int valid = __shfl_sync(0xffffffffu, mine.valid, 0), slot = __shfl_sync(0xffffffffu, mine.slot, 0);
    if (tile < 0) break;
#pragma unroll
    for (int i = 0; i < OUTS; i++) o[i] = 0.0f;
    rows.top[0] = rows.top[1] = NEG_INF;
    rows.sum[0] = rows.sum[1] = 0.0f;
    if (stages > 0) {
      barWait(bars.keyFull(keys.stage), keys.parity);
      mmaFence();
      issueScores(s, query, keyStages + keys.stage * (STAGE_BYTES >> 4), counts + keys.stage * (COUNT_BYTES >> 4), ones);
      mmaCommit();
      mmaWait<0>();
      pin(s);
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
        namedSync(1 + group, 256);
        pin(o);
        pin(p);
        mmaFence();
        issueScores(s, query, keyStages + keys.stage * (STAGE_BYTES >> 4), counts + keys.stage * (COUNT_BYTES >> 4), ones);
        mmaCommit();
        barWait(bars.valueFull(values.stage), values.parity);
        issueOutput(o, p, valueStages + values.stage * (STAGE_BYTES >> 4));
        mmaCommit();
        namedArrive(2 - group, 256);
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
    if (lane == 0) barArrive(bars.queryEmpty());
    if (stages > 0) {
      barWait(bars.valueFull(values.stage), values.parity);
      pin(o);
      pin(p);
      mmaFence();
      issueOutput(o, p, valueStages + values.stage * (STAGE_BYTES >> 4));
      mmaCommit();
      mmaWait<0>();
      pin(o);
      if (lane == 0) barArrive(bars.valueEmpty(values.stage));
      values.next();
    }
    storeItem(a, o, rows, tile, slot, rowInTile, lane, unit);
  }
  if (group == 0) namedSync(1, 256);
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
