// What tiles of queries see, see README.md.
struct PlanArgs {
  const void *query, *keys;
  const float* logCount;
  const int *lengths, *kinds, *fresh, *dense;
  const float *turns, *mass;
  float *means, *logs;
  int* tokens;
  float *groups, *norms, *scores;
  int *lists, *tileKeys, *tileEnds;
  double fraction;
  i64 queryHead, queryRow, keyHead, keyRow, logHead;
  u32 heads, queries, keyCount, headDim, tile, tiles, queryTile, queryTiles, group, groupsEach, turned, least, entries;
  u32 queryHalf, keyHalf;
  float scale, temper;
  u32 room;  // tiles that means, logs and tokens have room for
};
static_assert(sizeof(PlanArgs) == 264, "PlanArgs is mirrored by planArgs in plan.go");

#define FULL 0xffffffffu
#define INF __int_as_float(0x7f800000)

__device__ __forceinline__ float element(const void* p, i64 at, u32 half) { return half ? widen(((const bf16*)p)[at]) : ((const float*)p)[at]; }

// plan_means writes mean, logarithm of tokens and number of tokens of fresh tiles. A block of 128 threads has a tile of a head.
extern "C" __global__ void __launch_bounds__(128) plan_means(const __grid_constant__ PlanArgs a) {
  __shared__ float row[128];
  u32 t = (u32)a.fresh[blockIdx.x], h = blockIdx.y, d = threadIdx.x;
  u32 lo = t * a.tile, hi = min(a.keyCount, lo + a.tile);
  if (a.lengths != nullptr) hi = min(hi, (u32)max(a.lengths[h], 0));
  float sum = 0.0f, total = 0.0f;
  u32 n = 0;
  for (u32 k = lo; k < hi; k++) {
    float w = 1.0f;
    if (a.logCount != nullptr) w = expf(a.logCount[h * a.logHead + k]);
    if (w == 0.0f) continue;
    total += w, n++;
    if (d < a.headDim) sum += w * element(a.keys, h * a.keyHead + (i64)k * a.keyRow + d, a.keyHalf);
  }
  sum = total > 0.0f ? sum / total : 0.0f;
  row[d] = sum;
  __syncthreads();
  if (a.kinds[t] == 3 && d / 2 < a.turned) {  // back in time
    float2 r = ((const float2*)a.turns)[d / 2];
    sum = d % 2 == 0 ? row[d] * r.x + row[d + 1] * r.y : row[d] * r.x - row[d - 1] * r.y;
  }
  i64 at = (i64)h * a.room + t;
  if (d < a.headDim) a.means[at * a.headDim + d] = sum;
  if (d == 0) a.logs[at] = total > 0.0f ? logf(total) : -INF, a.tokens[at] = (int)n;
}

// plan_groups divides the queries of a tile into groups of near ones and writes their means, as they are and turned back in time. A
// block of 128 threads has a tile of a head.
extern "C" __global__ void __launch_bounds__(128) plan_groups(const __grid_constant__ PlanArgs a) {
  extern __shared__ float4 shared[];
  float* q = (float*)shared;  // [queryTile][headDim + 1]
  __shared__ u32 order[128], stack[16][2], depth;
  __shared__ float spread[128];
  u32 t = threadIdx.x, tile = blockIdx.x, h = blockIdx.y, width = a.headDim + 1;
  u32 lo = tile * a.queryTile, n = min(a.queries, lo + a.queryTile) - lo;
  for (u32 i = t; i < n * a.headDim; i += 128) {
    u32 y = i / a.headDim, x = i % a.headDim;
    q[y * width + x] = element(a.query, h * a.queryHead + (i64)(lo + y) * a.queryRow + x, a.queryHalf);
  }
  order[t] = t;
  if (t == 0) depth = 1, stack[0][0] = 0, stack[0][1] = n;
  __syncthreads();
  while (depth > 0) {
    u32 from = stack[depth - 1][0], many = stack[depth - 1][1];
    __syncthreads();
    if (t == 0) depth--;
    if (many <= a.group) {
      __syncthreads();
      continue;
    }
    float v = -INF;
    if (t < a.headDim) {
      float sum = 0.0f, square = 0.0f;
      for (u32 i = 0; i < many; i++) {
        float x = q[order[from + i] * width + t];
        sum = __fadd_rn(sum, x), square = __fadd_rn(square, __fmul_rn(x, x));
      }
      v = __fsub_rn(square, __fmul_rn(sum, sum) / (float)many);
    }
    spread[t] = v;
    __syncthreads();
    u32 axis = 0;
    float widest = -INF;
    for (u32 i = 0; i < a.headDim; i++)
      if (spread[i] > widest) widest = spread[i], axis = i;
    u32 own = 0, rank = 0;
    if (t < many) {
      own = order[from + t];
      float x = q[own * width + axis];
      for (u32 i = 0; i < many; i++) {
        u32 o = order[from + i];
        float y = q[o * width + axis];
        rank += y < x || (y == x && o < own);
      }
    }
    __syncthreads();
    if (t < many) order[from + rank] = own;
    if (t == 0) {
      u32 half = (many + a.group - 1) / a.group / 2 * a.group;
      stack[depth][0] = from, stack[depth][1] = half;
      stack[depth + 1][0] = from + half, stack[depth + 1][1] = many - half;
      depth += 2;
    }
    __syncthreads();
  }
  i64 row = ((i64)h * a.queryTiles + tile) * a.groupsEach, all = (i64)a.heads * a.queryTiles * a.groupsEach;
  for (u32 g = 0; g < a.groupsEach; g++) {
    u32 first = g * a.group, end = min(n, first + a.group);
    float m = 0.0f;
    if (t < a.headDim && first < end) {
      for (u32 i = first; i < end; i++) m += q[order[i] * width + t];
      m /= (float)(end - first);
    }
    spread[t] = m;
    __syncthreads();
    if (t < a.headDim) {
      float old = m;
      if (t / 2 < a.turned) {
        float2 r = ((const float2*)a.turns)[t / 2];
        old = t % 2 == 0 ? m * r.x + spread[t + 1] * r.y : m * r.x - spread[t - 1] * r.y;
      }
      a.groups[(row + g) * a.headDim + t] = m;
      a.groups[(all + row + g) * a.headDim + t] = old;
    }
    if (t == 0 && a.mass != nullptr) {
      float s = 0.0f;
      for (u32 i = first; i < end; i++) s += a.mass[(i64)h * a.queries + lo + order[i]] / (float)(end - first);
      a.norms[row + g] = s;
    }
    __syncthreads();
  }
}

// split divides two neighbours into high and low halves.
__device__ __forceinline__ void split(float x, float y, u32& hi, u32& lo) {
  hi = pack2(x, y);
  lo = pack2(x - __uint_as_float(hi << 16), y - __uint_as_float(hi & 0xffff0000u));
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// power is e^x to about 3 %, as the host has it.
__device__ __forceinline__ float power(float x) { return x < -80.0f ? 0.0f : __int_as_float((int)(x * 12102203.0f) + 1064866805); }

#define STEPS 8  // of 16 elements, the most

// estimates computes 16 rows of groups against 8 tiles from t0 on: logits of the tiles of a kind, -Inf for others.
__device__ __forceinline__ void estimates(const PlanArgs& a, u32 h, u32 kind, const u32 (&qh)[STEPS][4], const u32 (&ql)[STEPS][4], u32 t0, float (&s)[4]) {
  u32 lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
  const float* mean = a.means + ((i64)h * a.room + min(t0 + r, a.tiles - 1)) * a.headDim;
  s[0] = s[1] = s[2] = s[3] = 0.0f;
#pragma unroll
  for (u32 k = 0; k < STEPS; k++) {
    if (k * 16 >= a.headDim) break;
    float2 x = *(const float2*)(mean + k * 16 + c * 2), y = *(const float2*)(mean + k * 16 + 8 + c * 2);
    u32 h0, h1, l0, l1;
    split(x.x, x.y, h0, l0);
    split(y.x, y.y, h1, l1);
    multiply(s, ql[k], h0, h1);
    multiply(s, qh[k], l0, l1);
    multiply(s, qh[k], h0, h1);
  }
#pragma unroll
  for (u32 j = 0; j < 4; j++) {
    u32 t = t0 + c * 2 + j % 2;
    s[j] = t < a.tiles && (u32)a.kinds[t] == kind ? s[j] * a.scale + a.logs[(i64)h * a.room + t] : -INF;
  }
}

// fragments loads 16 rows of groups from row on, of which many exist.
__device__ __forceinline__ void fragments(const PlanArgs& a, const float* groups, u32 many, u32 (&qh)[STEPS][4], u32 (&ql)[STEPS][4]) {
  u32 lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
#pragma unroll
  for (u32 k = 0; k < STEPS; k++)
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      qh[k][j] = ql[k][j] = 0;
      u32 y = r + j % 2 * 8, x = k * 16 + j / 2 * 8 + c * 2;
      if (y >= many || x >= a.headDim) continue;
      float2 v = *(const float2*)(groups + (i64)y * a.headDim + x);
      split(v.x, v.y, qh[k][j], ql[k][j]);
    }
}

#define WARPS 8

// plan_scores adds up the groups' shares of every tile of keys. A block has a tile of queries of a head; a warp every eighth run
// of eight tiles of keys.
extern "C" __global__ void __launch_bounds__(256) plan_scores(const __grid_constant__ PlanArgs a) {
  __shared__ float parts[WARPS][16];
  u32 tile = blockIdx.x, h = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, c = lane % 4;
  u32 n = min(a.queries, (tile + 1) * a.queryTile) - tile * a.queryTile, many = (n + a.group - 1) / a.group;
  i64 row = ((i64)h * a.queryTiles + tile) * a.groupsEach, all = (i64)a.heads * a.queryTiles * a.groupsEach;
  float* scores = a.scores + ((i64)h * a.queryTiles + tile) * a.tiles;
  for (u32 t = threadIdx.x; t < a.tiles; t += 256) scores[t] = 0.0f;
  __syncthreads();
  u32 qh[STEPS][4], ql[STEPS][4];
  for (u32 g0 = 0; g0 < many; g0 += 16) {
    float norm[2];
    if (a.mass != nullptr) {
      norm[0] = g0 + r < many ? a.norms[row + g0 + r] : INF;
      norm[1] = g0 + r + 8 < many ? a.norms[row + g0 + r + 8] : INF;
    } else {  // the mass of what can be chosen from
      norm[0] = norm[1] = -INF;
      for (u32 pass = 0; pass < 2; pass++) {  // the largest, then the sum relative to it
        float v[2] = {pass == 0 ? -INF : 0.0f, pass == 0 ? -INF : 0.0f};
        for (u32 kind = 2; kind < 4; kind++) {
          fragments(a, a.groups + ((kind == 3 ? all : 0) + row + g0) * a.headDim, many - g0, qh, ql);
          for (u32 t0 = warp * 8; t0 < a.tiles; t0 += WARPS * 8) {
            if (!__any_sync(FULL, t0 + lane % 8 < a.tiles && (u32)a.kinds[min(t0 + lane % 8, a.tiles - 1)] == kind)) continue;
            float s[4];
            estimates(a, h, kind, qh, ql, t0, s);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
              if (pass == 0) v[j / 2] = fmaxf(v[j / 2], s[j]);
              else if (s[j] != -INF) v[j / 2] += power(s[j] - norm[j / 2]);
            }
          }
        }
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
#pragma unroll
          for (int w = 1; w < 4; w <<= 1) {
            float o = __shfl_xor_sync(FULL, v[j], w);
            v[j] = pass == 0 ? fmaxf(v[j], o) : v[j] + o;
          }
          if (c == 0) parts[warp][r + 8 * j] = v[j];
        }
        __syncthreads();
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          float x = parts[0][r + 8 * j];
          for (u32 w = 1; w < WARPS; w++) x = pass == 0 ? fmaxf(x, parts[w][r + 8 * j]) : x + parts[w][r + 8 * j];
          norm[j] = pass == 0 ? x : norm[j] + logf(x);
        }
        __syncthreads();
      }
      if (g0 + r >= many || norm[0] == -INF) norm[0] = INF;
      if (g0 + r + 8 >= many || norm[1] == -INF) norm[1] = INF;
    }
    for (u32 kind = 2; kind < 4; kind++) {
      fragments(a, a.groups + ((kind == 3 ? all : 0) + row + g0) * a.headDim, many - g0, qh, ql);
      for (u32 t0 = warp * 8; t0 < a.tiles; t0 += WARPS * 8) {
        if (!__any_sync(FULL, t0 + lane % 8 < a.tiles && (u32)a.kinds[min(t0 + lane % 8, a.tiles - 1)] == kind)) continue;
        float s[4], part[2];
        estimates(a, h, kind, qh, ql, t0, s);
#pragma unroll
        for (u32 j = 0; j < 4; j++) s[j] = s[j] == -INF || norm[j / 2] == INF ? 0.0f : power(a.temper * fminf(0.0f, s[j] - norm[j / 2]));
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          part[j] = s[j] + s[j + 2];
#pragma unroll
          for (int w = 4; w < 32; w <<= 1) part[j] += __shfl_xor_sync(FULL, part[j], w);
          u32 t = t0 + c * 2 + j;
          if (r == 0 && t < a.tiles && (u32)a.kinds[t] == kind) scores[t] += part[j];
        }
      }
    }
  }
}

#define PICK 256

// sumBlock returns the sum of the threads' numbers before this one, and all of them.
__device__ __forceinline__ u32 sumBlock(u32 x, u32& all) {
  __shared__ u32 parts[PICK / 32];
  u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, up = x;
#pragma unroll
  for (int w = 1; w < 32; w <<= 1) {
    u32 y = __shfl_up_sync(FULL, up, w);
    if (lane >= (u32)w) up += y;
  }
  __syncthreads();
  if (lane == 31) parts[warp] = up;
  __syncthreads();
  u32 before = 0;
  all = 0;
  for (u32 w = 0; w < PICK / 32; w++) {
    if (w < warp) before += parts[w];
    all += parts[w];
  }
  return before + up - x;
}

// plan_pick lists kept tiles and the best of the others: a search for the score at which the budget of tokens is spent, 8 bits of
// it at a time (scores above 0 sort like their bits). Of equal scores the first tiles are taken. A block has a tile of queries.
extern "C" __global__ void __launch_bounds__(PICK) plan_pick(const __grid_constant__ PlanArgs a) {
  __shared__ u32 bins[256];
  __shared__ u32 chosen, spent;
  u32 tile = blockIdx.x, h = blockIdx.y, t = threadIdx.x, row = h * a.queryTiles + tile;
  const u32* scores = (const u32*)(a.scores + (i64)row * a.tiles);
  const int* tokens = a.tokens + (i64)h * a.room;
  int* list = a.lists + (i64)row * a.tiles;
  u32 each = (a.tiles + PICK - 1) / PICK, lo = min(a.tiles, t * each), hi = min(a.tiles, lo + each);
  bool dense = a.dense != nullptr && a.dense[h] != 0;
  u32 mine = 0, all;
  for (u32 i = lo; i < hi; i++)
    if (a.kinds[i] >= 2) mine += (u32)tokens[i];
  sumBlock(mine, all);
  u32 budget = max(a.least, (u32)(a.fraction * (double)all + 0.5));
  u32 prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bins[t] = 0;
    __syncthreads();
    for (u32 i = t; i < a.tiles; i += PICK) {
      u32 k = scores[i];
      if (a.kinds[i] >= 2 && k != 0 && (shift == 24 || k >> (shift + 8) == prefix)) atomicAdd(&bins[k >> shift & 255], (u32)tokens[i]);
    }
    __syncthreads();
    // Bins from the largest on: the first that does not fit holds the score looked for.
    u32 own = bins[255 - t], before = sumBlock(own, all);
    if (t == 0) chosen = 0, spent = all;
    __syncthreads();
    if (before <= budget && before + own > budget) chosen = 255 - t, spent = before;
    __syncthreads();
    if (all <= budget) {  // everything fits: this happens at the first digit only, later ones have a bin too large
      prefix = 0;
      break;
    }
    prefix = prefix << 8 | chosen;
    budget -= spent;
    __syncthreads();
  }
  // Scores above prefix are taken, and of those equal to it the first that fit.
  mine = 0;
  for (u32 i = lo; i < hi; i++)
    if (a.kinds[i] >= 2 && scores[i] == prefix && prefix != 0) mine += (u32)tokens[i];
  u32 used = sumBlock(mine, all), count = 0;
  for (u32 pass = 0; pass < 2; pass++) {
    u32 sum = used, at = 0;
    if (pass == 1) {
      at = sumBlock(count, all);
      if (t == 0) a.tileEnds[row] = (int)all;
    }
    for (u32 i = lo; i < hi; i++) {
      u32 kind = (u32)a.kinds[i], k = scores[i];
      bool take = kind == 1 || (dense && kind != 0);
      if (kind >= 2 && k > prefix) take = true;
      if (kind >= 2 && k == prefix && prefix != 0) {
        sum += (u32)tokens[i];
        take = take || sum <= budget;
      }
      if (!take) continue;
      if (pass == 1) list[at++] = (int)i;
      else count++;
    }
  }
}

// plan_ends adds up the lengths of the lists; one block.
extern "C" __global__ void __launch_bounds__(PICK) plan_ends(const __grid_constant__ PlanArgs a) {
  u32 rows = a.heads * a.queryTiles, t = threadIdx.x, each = (rows + PICK - 1) / PICK, lo = min(rows, t * each), hi = min(rows, lo + each), mine = 0, all;
  for (u32 i = lo; i < hi; i++) mine += (u32)a.tileEnds[i];
  u32 at = sumBlock(mine, all);
  for (u32 i = lo; i < hi; i++) {
    at += (u32)a.tileEnds[i];
    a.tileEnds[i] = (int)min(at, a.entries);
  }
}

// plan_keys puts the lists one behind the other. A block has a list.
extern "C" __global__ void __launch_bounds__(128) plan_keys(const __grid_constant__ PlanArgs a) {
  u32 row = blockIdx.x, from = row == 0 ? 0 : (u32)a.tileEnds[row - 1], end = (u32)a.tileEnds[row];
  for (u32 i = threadIdx.x; from + i < end; i += 128) a.tileKeys[from + i] = a.lists[(i64)row * a.tiles + i];
}
