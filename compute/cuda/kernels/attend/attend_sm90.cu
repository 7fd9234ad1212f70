// Attention forward for Hopper (sm_90a): TMA in, wgmma, one softmax in fp32 registers.
//
// Given to NVRTC after attend_parts.cuh and attend_hopper.cuh, whose defines choose the variant; README.md
// beside this file holds the contract. Further defines:
//   BLOCK_N    keys of one stage: 128, or 160 (a little faster with BIAS over many keys); lists need 128
//   STAGES     key and value stages in flight
//
// A thread block is one loading warpgroup (one warp of it works) and two computing warpgroups of
// 64 query rows each. Work items (a query tile and a run of key stages) are handed out by the
// loading warp through shared memory. They follow each other without a gap: the next item's queries and keys are loaded
// while this one runs, and its first scores are taken beside this one's last product.

constexpr int HALVES = HEAD_DIM / 64;            // columns of 64 bf16 = one 128-byte swizzle row
constexpr u32 QUERY_BYTES = ROWS * HEAD_DIM * 2;
constexpr u32 STAGE_BYTES = BLOCK_N * HEAD_DIM * 2;
constexpr u32 COUNT_BYTES = BLOCK_N * 32;            // log-counts of a stage: a matrix of 16 columns, 3 used

static_assert(LIST_TILE == 0 || BLOCK_N == 128, "lists use stages of 128 keys");


struct alignas(16) Item { int tile, stages, valid, slot; };  // stages 0: nothing to add up; then tile < 0: no more work

// Two tiles of queries where they fit (227 KiB), so that the next item's queries are there when its turn comes.
constexpr int PAIR = 2;
constexpr u32 REST_BYTES = 1024 + 2 * STAGES * STAGE_BYTES + (BIAS ? STAGES * COUNT_BYTES : 0) + 256;
#ifdef QUERY_BUFFERS
constexpr int QUERIES = QUERY_BUFFERS;
#else
constexpr int QUERIES = REST_BYTES + PAIR * QUERY_BYTES <= 227 * 1024 ? PAIR : 1;
#endif

struct Layout {
  static constexpr u32 query = 0;
  static constexpr u32 keys = query + QUERIES * QUERY_BYTES;
  static constexpr u32 values = keys + STAGES * STAGE_BYTES;
  static constexpr u32 logCount = values + STAGES * STAGE_BYTES;
  static constexpr u32 item = logCount + (BIAS ? STAGES * COUNT_BYTES : 0);
  static constexpr u32 counted = item + 16 * PAIR;  // for each stage whether any of its log-counts is not zero
  static constexpr u32 bars = counted + 4 * STAGES + 8;
  static constexpr u32 bytes = bars + 8 * (2 * PAIR + 4 * STAGES);
};
static_assert(Layout::bytes <= REST_BYTES - 1024 + QUERIES * QUERY_BYTES, "shared memory");

// Barrier addresses, in order: query full and empty of each buffer, then per stage key full/empty, value full/empty.
struct Bars {
  u32 at;
  __device__ u32 queryFull(int s) const { return at + 8 * s; }
  __device__ u32 queryEmpty(int s) const { return at + 8 * (PAIR + s); }
  __device__ u32 keyFull(int s) const { return at + 8 * (2 * PAIR + s); }
  __device__ u32 keyEmpty(int s) const { return at + 8 * (2 * PAIR + STAGES + s); }
  __device__ u32 valueFull(int s) const { return at + 8 * (2 * PAIR + 2 * STAGES + s); }
  __device__ u32 valueEmpty(int s) const { return at + 8 * (2 * PAIR + 3 * STAGES + s); }
};

// ---- work ----

// The keys of one item: stages are counted from the last key tile backwards, so that only stage 0 can
// be partly filled and every later one needs no mask.
struct Run { int head, counts, keys, first, last, total, begin, end, valid; };

__device__ __forceinline__ int listEnd(const Attention &a, int tile) { return tile < 0 ? 0 : a.tileEnds[tile]; }

__device__ __forceinline__ Run runOf(const Attention &a, int tile, int low, int high, int parts) {
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
  r.first = static_cast<int>(static_cast<long long>(r.total) * low / parts);
  r.last = static_cast<int>(static_cast<long long>(r.total) * high / parts);
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

// Writes the parts, in score units, unless all are zero, and counts the warp in at the barrier.
__device__ __forceinline__ void storeCounts(const Counts &c, float perScore, u32 smem, int stage, u32 bar, int lane) {
  const u32 at = smem + Layout::logCount + stage * COUNT_BYTES;
  bool some = false;
#pragma unroll
  for (int i = 0; i < SHARE; i++) some |= lane + 32 * i < BLOCK_N && c.x[i] != 0.0f;
  some = __any_sync(0xffffffffu, some);
  if (some) {
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      float x = fmaxf(c.x[i] * perScore, NEG_INF);
      const u32 first = takePart(x), second = takePart(x), third = takePart(x);
      if (lane + 32 * i < BLOCK_N)
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %3};" ::"r"(at + 16 * (lane + 32 * i)),
                     "r"(first | second << 16), "r"(third), "r"(0) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncwarp();
  if (lane > 0) return;
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(smem + Layout::counted + 4 * stage), "r"(some ? 1 : 0) : "memory");
  barArrive(bar);
}

// Columns 8 to 15 of the log-count matrices stay zero.
__device__ __forceinline__ void clearCounts(u32 at, int lane) {
  for (int i = lane; i < STAGES * BLOCK_N; i += 32)
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at + i / BLOCK_N * COUNT_BYTES + (BLOCK_N + i % BLOCK_N) * 16),
                 "r"(0) : "memory");
}

// One stage of keys or values, once its place in the ring is free.
__device__ __forceinline__ void loadStage(Ring<STAGES> &ring, u32 empty, u32 full, u32 stages, const TensorMap *map, int head,
                                          Tokens t, int lane) {
  barWait(empty + 8 * ring.at, ring.parity);
  if (lane == 0) {
    barExpect(full + 8 * ring.at, STAGE_BYTES);
    loadRows(stages + ring.at * STAGE_BYTES, map, full + 8 * ring.at, head, t);
  }
  ring.next();
}

// What a block draws: a whole tile, or a piece, which may have parts of several tiles.
struct Draw { int at, split, last; };
struct Work { Run r; int tile, slot; };

__device__ __forceinline__ int takeItem(const Attention &a, int last, int lane) {
  if (!a.counter) return last < 0 ? blockIdx.x : last + gridDim.x;
  int at = 0;
  if (lane == 0) at = atomicAdd(a.counter, 1);
  return __shfl_sync(0xffffffffu, at, 0);
}

// The next work of this block; false at the end, after which it must not be asked again.
__device__ __forceinline__ bool draw(const Attention &a, Draw &d, Work &w, int lane) {
  const int rest = a.heads * a.queryTiles - a.whole;
  if (d.split == d.last) {
    d.at = takeItem(a, d.at, lane);
    const int j = d.at - a.whole;
    if (j < 0) {
      w.tile = d.at;
      w.slot = -1;
      w.r = runOf(a, w.tile, 0, 1, 1);
      return true;
    }
    if (j >= (rest > 0 ? a.pieces : 0)) return false;
    d.split = j * rest / a.pieces - 1;
    d.last = ((j + 1) * rest - 1) / a.pieces;
  }
  d.split++;
  const Piece p = pieceOf(a, d.split, d.at - a.whole);
  w.tile = p.tile;
  w.slot = p.slot;
  w.r = runOf(a, w.tile, p.low, p.high, a.pieces);
  return true;
}

// Tells the computing warps what comes next and sends the queries there.
__device__ __forceinline__ void openItem(const Attention &a, const Work &w, int at, const TensorMap *map, u32 smem, Bars bars,
                                         volatile Item *items) {
  volatile Item *item = items + at;
  item->tile = w.tile;
  item->stages = w.r.last - w.r.first;
  item->valid = w.r.valid;
  item->slot = w.slot;
  if (w.r.first == w.r.last) {
    barArrive(bars.queryFull(at));
    return;
  }
  barExpect(bars.queryFull(at), QUERY_BYTES);
#pragma unroll
  for (int h = 0; h < HALVES; h++)
    loadBox(smem + Layout::query + at * QUERY_BYTES + h * ROWS * 128, map, bars.queryFull(at), 64 * h,
            (w.tile % a.queryTiles) * ROWS, w.r.head);
}

__device__ __forceinline__ Tokens firstTokens(const Attention &a, const Work &w) {
  return w.r.first < w.r.last ? stageTokens(a, w.r, w.r.first) : Tokens{0, 0};
}

// The loading warp: draws work, fills the rings. Keys run one stage ahead of values, also from one item to the next.
__device__ __forceinline__ void loadAll(const Attention &a, const TensorMap *queryMap, const TensorMap *keyMap,
                                        const TensorMap *valueMap, u32 smem, Bars bars, volatile Item *items, int lane) {
  const float perScore = 1.0f / a.scale;
  Ring<STAGES> keys = {0, 1}, values = {0, 1};
  Ring<QUERIES> queries = {0, 1};
  Draw deal = {-1, 0, 0};
  Work w, after;
  Counts counts;
  if (BIAS) clearCounts(smem + Layout::logCount, lane);
  bool more = draw(a, deal, w, lane), owed = false;  // owed: values of the last stage of keys
  Tokens now = {0, 0}, before = {0, 0};
  int beforeHead = 0;
  if (more) {
    now = firstTokens(a, w);
    if (BIAS) fetchCounts(counts, a, w.r, now, lane);
  }
  while (more) {
    barWait(bars.queryEmpty(queries.at), queries.parity);
    if (lane == 0) openItem(a, w, queries.at, queryMap, smem, bars, items);
    queries.next();
    const int stages = w.r.last - w.r.first, early = max(stages - 3, 0);
    bool ahead = false;
    for (int i = 0; i < max(stages, 1); i++) {
      if (i == early) ahead = draw(a, deal, after, lane);  // before it is needed: it waits for memory
      const bool inside = i + 1 < stages;
      const Tokens next = inside ? stageTokens(a, w.r, w.r.first + i + 1) : ahead ? firstTokens(a, after) : Tokens{0, 0};
      if (stages > 0) {
        loadStage(keys, bars.keyEmpty(0), bars.keyFull(0), smem + Layout::keys, keyMap, w.r.head, now, lane);
        const int at = keys.at == 0 ? STAGES - 1 : keys.at - 1;
        if (BIAS) storeCounts(counts, perScore, smem, at, bars.keyFull(at), lane);
      }
      if (BIAS && inside) fetchCounts(counts, a, w.r, next, lane);
      if (BIAS && !inside && ahead) fetchCounts(counts, a, after.r, next, lane);
      if (owed)
        loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, beforeHead, before, lane);
      owed = stages > 0;
      before = now;
      beforeHead = w.r.head;
      now = next;
    }
    w = after;
    more = ahead;
  }
  if (owed)
    loadStage(values, bars.valueEmpty(0), bars.valueFull(0), smem + Layout::values, valueMap, beforeHead, before, lane);
  barWait(bars.queryEmpty(queries.at), queries.parity);
  if (lane > 0) return;
  items[queries.at].tile = -1;
  items[queries.at].stages = 0;
  barArrive(bars.queryFull(queries.at));
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
// whose first three columns are one; stages without log-counts spare the k-step.
template <bool COUNTED> __device__ __forceinline__ void scoresOf(float (&s)[SCORES], u32 query, u32 key, u32 count, u32 ones) {
  if (COUNTED) scoreStep(s, ones, ones, 0, 0, COUNTS | count, 0);
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; k++) {
    const u64 a = MATRIX | (query + (k / 4) * (ROWS * 128 >> 4) + (k % 4) * 2);
    const u64 b = MATRIX | (key + (k / 4) * (BLOCK_N * 128 >> 4) + (k % 4) * 2);
    scoreStep(s, a, b, COUNTED ? 1 : k);
  }
}

// What a computing warpgroup holds besides its registers of numbers.
struct Worker {
  u32 smem;
  Bars bars;
  const volatile Item *items;
  int group, thread, lane;
  float unit;
  u32 counts, ones, query, keyStages, valueStages;  // matrix descriptors
  Ring<STAGES> keys, values;
  Ring<QUERIES> queries;  // the next item to take

  __device__ __forceinline__ void arrive(u32 bar) const {
    if (lane == 0) barArrive(bar);
  }

  // Waits for the next item. One without stages is given back at once.
  __device__ __forceinline__ Item take(u32 &queryNow, u32 &emptyNow) {
    barWait(bars.queryFull(queries.at), queries.parity);
    Item mine = {0, 0, 0, 0};
    const volatile Item *item = items + queries.at;
    if (lane == 0) mine = {item->tile, item->stages, item->valid, item->slot};  // by the lane that gives the place back
    const Item next = {__shfl_sync(0xffffffffu, mine.tile, 0), __shfl_sync(0xffffffffu, mine.stages, 0),
                       __shfl_sync(0xffffffffu, mine.valid, 0), __shfl_sync(0xffffffffu, mine.slot, 0)};
    queryNow = query + queries.at * (QUERY_BYTES >> 4);
    emptyNow = bars.queryEmpty(queries.at);
    if (next.stages == 0) arrive(emptyNow);
    queries.next();
    return next;
  }

  __device__ __forceinline__ void waitKeys() const { barWait(bars.keyFull(keys.at), keys.parity); }
  __device__ __forceinline__ void waitValues() const { barWait(bars.valueFull(values.at), values.parity); }
  __device__ __forceinline__ void freeKeys() {
    arrive(bars.keyEmpty(keys.at));
    keys.next();
  }
  __device__ __forceinline__ void freeValues() {
    arrive(bars.valueEmpty(values.at));
    values.next();
  }

  // Whether the stage of keys that has come has log-counts; the same for all lanes.
  __device__ __forceinline__ bool counted() const {
    if (!BIAS) return false;
    u32 x = 0;
    if (lane == 0)  // the lane that gives the place back
      asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(smem + Layout::counted + 4 * keys.at) : "memory");
    return __shfl_sync(0xffffffffu, x, 0) != 0;
  }

  __device__ __forceinline__ void issueScores(float (&s)[SCORES], u32 queryNow, bool some) const {
    const u32 key = keyStages + keys.at * (STAGE_BYTES >> 4), count = counts + keys.at * (COUNT_BYTES >> 4);
    if (BIAS && some) scoresOf<true>(s, queryNow, key, count, ones);
    else scoresOf<false>(s, queryNow, key, count, ones);
    mmaCommit();
  }

  // o += P V for one stage; weights from registers, values MN-major.
  __device__ __forceinline__ void issueValues(float (&o)[OUTS], const u32 (&p)[WEIGHTS]) const {
    const u32 value = valueStages + values.at * (STAGE_BYTES >> 4);
#pragma unroll
    for (int k = 0; k < BLOCK_N / 16; k++)
      outputStep(o, p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3], MATRIX | (value + k * (16 * 128 >> 4)));
    mmaCommit();
  }

  // Scores of a stage alone: the first of an item that follows none.
  __device__ __forceinline__ void scores(float (&s)[SCORES], u32 queryNow) {
    waitKeys();
    const bool some = counted();
    mmaFence();
    issueScores(s, queryNow, some);
    mmaWait<0>();
    pin(s);
    freeKeys();
  }

  // Scores of a stage together with the value product of the stage before, which may still run at the end. The groups
  // take turns at the matrix unit.
  __device__ __forceinline__ void both(float (&s)[SCORES], float (&o)[OUTS], u32 (&p)[WEIGHTS], u32 queryNow) {
    waitKeys();
    const bool some = counted();
    namedSync(1 + group, 256);
    pin(o);
    pin(p);
    mmaFence();
    issueScores(s, queryNow, some);
    waitValues();
    issueValues(o, p);
    namedArrive(2 - group, 256);
    mmaWait<1>();
    pin(s);
    freeKeys();
  }
  __device__ __forceinline__ void endValues(float (&o)[OUTS], u32 (&p)[WEIGHTS]) {
    mmaWait<0>();
    pin(o);
    pin(p);
    freeValues();
  }

  // Values past the last key may be anything with RAGGED; they lie in the stage that comes next. Without it they are zeros, but
  // ptxas makes wgmma wait for each other (C7520) where this branch is missing.
  __device__ __forceinline__ void clean(int valid) const {
    if (valid >= BLOCK_N) return;
    waitValues();
    clearTail(smem + Layout::values + values.at * STAGE_BYTES, valid, thread, group);
  }
};

__device__ __forceinline__ void clear(float (&o)[OUTS], Rows &rows) {
#pragma unroll
  for (int i = 0; i < OUTS; i++) o[i] = 0.0f;
  rows.top[0] = rows.top[1] = NEG_INF;
  rows.sum[0] = rows.sum[1] = 0.0f;
}

__device__ __forceinline__ void computeAll(const Attention &a, Worker w) {
  const int rowInTile = 64 * w.group + 16 * (w.thread / 32) + w.lane / 4;
  float s[SCORES], o[OUTS];
  u32 p[WEIGHTS], query, queryEmpty;
  Rows rows;
  if (w.group == 1) namedArrive(1, 256);  // group 0 begins
  Item now = w.take(query, queryEmpty);
  while (now.tile >= 0) {
    Item next;
    clear(o, rows);
    if (now.stages == 0) {
      next = w.take(query, queryEmpty);
    } else {
      w.scores(s, query);
      if (now.stages == 1) w.arrive(queryEmpty);
      if (now.valid < BLOCK_N) mask(s, w.lane, now.valid);
      weigh<true>(s, rows, w.unit);
      packWeights(p, s);
      w.clean(now.valid);
      for (;;) {
        for (int left = now.stages - 1; left > 0; left--) {
          w.both(s, o, p, query);
          if (left == 1) w.arrive(queryEmpty);
          const bool turned = weigh<false>(s, rows, w.unit);
          pin(s);  // else the compiler moves the exponentials behind the wait
          w.endValues(o, p);
          if (turned) {
#pragma unroll
            for (int j = 0; j < OUTS; j++) o[j] *= rows.turn[(j >> 1) & 1];
          }
          packWeights(p, s);
        }
        next = w.take(query, queryEmpty);
        if (next.stages == 0) break;
        w.both(s, o, p, query);  // the next item's first scores beside this one's last product
        if (next.stages == 1) w.arrive(queryEmpty);
        if (next.valid < BLOCK_N) mask(s, w.lane, next.valid);
        const Rows done = rows;
        weigh<true>(s, rows, w.unit);
        pin(s);
        w.endValues(o, p);
        packWeights(p, s);
        storeItem(a, o, done, now.tile, now.slot, rowInTile, w.lane, w.unit);
#pragma unroll
        for (int i = 0; i < OUTS; i++) o[i] = 0.0f;
        w.clean(next.valid);
        now = next;
      }
      w.waitValues();
      pin(o);
      pin(p);
      mmaFence();
      w.issueValues(o, p);
      w.endValues(o, p);
    }
    storeItem(a, o, rows, now.tile, now.slot, rowInTile, w.lane, w.unit);
    now = next;
  }
  if (w.group == 0) namedSync(1, 256);
}

__device__ __forceinline__ Worker workerOf(const Attention &a, u32 smem, Bars bars, const volatile Item *items, int group, int thread) {
  const int quad = thread & 3;
  return {smem, bars, items, group, thread, thread & 31, a.scale * LOG2E, matrixAt(smem + Layout::logCount, BLOCK_N * 16),
          quad == 0 ? 0x3f803f80u : quad == 1 ? 0x3f80u : 0u, matrixAt(smem + Layout::query + group * 64 * 128, 16),
          matrixAt(smem + Layout::keys, 16), matrixAt(smem + Layout::values, BLOCK_N * 128), {0, 0}, {0, 0}, {0, 0}};
}

extern "C" __global__ void __launch_bounds__(384, 1)
    attend(const __grid_constant__ TensorMap queryMap, const __grid_constant__ TensorMap keyMap,
           const __grid_constant__ TensorMap valueMap, const __grid_constant__ Attention a) {
  extern __shared__ unsigned char raw[];
  const u32 smem = (sharedAddress(raw) + 1023) & ~1023u;
  unsigned char *aligned = raw + (smem - sharedAddress(raw));
  volatile Item *items = reinterpret_cast<volatile Item *>(aligned + Layout::item);
  const Bars bars = {smem + Layout::bars};
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    for (int s = 0; s < QUERIES; s++) {
      barInit(bars.queryFull(s), 1);
      barInit(bars.queryEmpty(s), 8);
    }
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
    if (warp == 0) loadAll(a, &queryMap, &keyMap, &valueMap, smem, bars, items, threadIdx.x);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((504 - LOAD_REGS) / 2));
    computeAll(a, workerOf(a, smem, bars, items, warp / 4 - 1, threadIdx.x % 128));
  }
}
