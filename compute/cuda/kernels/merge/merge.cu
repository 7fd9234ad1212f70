// The kernels of compute.Merger, see README.md.
// merge_describe writes the unit vectors of the frame, and its queries in the space of comparison. A warp has a token.
extern "C" __global__ void __launch_bounds__(256) merge_describe(const __grid_constant__ MergeArgs a) {
  u32 layer = layerOf(a, blockIdx.z);
  const MergeStore& s = a.stores[layer];
  u32 i = blockIdx.x * 8 + threadIdx.x / 32, g = blockIdx.y, n = a.heads / a.groups;
  if (isLocal(s, g)) return;
  u32 *firsts = claimsOf(a, layer, g, 0), *joiners = claimsOf(a, layer, g, 1);
  for (u32 e = blockIdx.x * 256 + threadIdx.x; e < s.slots; e += gridDim.x * 256) firsts[e] = 0xffffffffu, joiners[e] = 0;
  if (i >= a.tokens) return;
  for (u32 h = 0; h < n; h++) {
    i64 to = ((i64)g * a.tokens + i) * n + h;
    save((char*)probeOf(a, layer), to, 0, a.headDim, compared(a, s, g * n + h, a.at + i, i));
    if (!a.asked) continue;
    Pairs q = row(s.queries, (i64)(g * n + h) * a.ring + a.at + i, a.half, a.headDim);
    if (a.space == 1) turn(a, q, a.frame, i, -1.0f, -1.0f);
    if (a.space == 0) turn(a, q, a.frame, i, -1.0f, 0.0f);
    save((char*)a.query, to, 0, a.headDim, q);
  }
}

#define GENERATIONS 8  // of a place at a time

// merge_cells lists the newest entries of each place of the picture. A block has a group; shared memory has a number a place.
extern "C" __global__ void __launch_bounds__(1024) merge_cells(const __grid_constant__ MergeArgs a) {
  extern __shared__ float4 shared[];
  u32* count = (u32*)shared;  // [tokens], then where the place's list ends
  u32* part = count + a.tokens;  // [1024]
  u32 layer = layerOf(a, blockIdx.y);
  const MergeStore& s = a.stores[layer];
  u32 g = blockIdx.x, t = threadIdx.x, n = min((u32)s.entries[g], ordinaryOf(a, s));
  if (isLocal(s, g)) return;
  const int *cell = stateOf(a, s, CELL, g), *time = stateOf(a, s, TIME, g);
  u32* list = listsOf(a, layer, g);
  for (u32 i = t; i < a.tokens; i += 1024) count[i] = 0;
  __syncthreads();
  for (u32 e = t; e < n; e += 1024) atomicAdd(&count[cell[e]], 1u);
  __syncthreads();
  u32 each = (a.tokens + 1023) / 1024, lo = min(a.tokens, t * each), hi = min(a.tokens, lo + each), sum = 0;
  for (u32 i = lo; i < hi; i++) sum += count[i];
  part[t] = sum;
  __syncthreads();
  for (u32 w = 1; w < 1024; w <<= 1) {
    u32 x = t >= w ? part[t - w] : 0;
    __syncthreads();
    part[t] += x;
    __syncthreads();
  }
  sum = part[t] - sum;
  for (u32 i = lo; i < hi; i++) {
    u32 c = count[i];
    count[i] = sum;
    sum += c;
  }
  __syncthreads();
  for (u32 e = t; e < n; e += 1024) list[atomicAdd(&count[cell[e]], 1u)] = e;
  __syncthreads();
  // The newest come first. Entries of a place differ in time: a token is the newest member of one.
  for (u32 i = t; i < a.tokens; i += 1024) {
    u32 from = i == 0 ? 0 : count[i - 1], end = count[i];
    int* recent = recentOf(a, layer) + ((i64)g * a.tokens + i) * a.depth;
    for (u32 done = 0, before = 0x7fffffff; done < a.depth; done += GENERATIONS) {  // once, if not many are asked for
      int newest[GENERATIONS], at[GENERATIONS];
#pragma unroll
      for (u32 k = 0; k < GENERATIONS; k++) newest[k] = at[k] = -1;
      for (u32 j = from; j < end; j += 4) {
        int e[4], w[4];
#pragma unroll
        for (u32 m = 0; m < 4; m++) e[m] = j + m < end ? (int)list[j + m] : -1;
#pragma unroll
        for (u32 m = 0; m < 4; m++) w[m] = e[m] >= 0 ? time[e[m]] : -1;
#pragma unroll
        for (u32 m = 0; m < 4; m++) {
          if (w[m] >= (int)before) continue;
#pragma unroll
          for (u32 k = 0; k < GENERATIONS; k++) {
            if (w[m] <= newest[k]) continue;
            int x = newest[k], y = at[k];
            newest[k] = w[m], at[k] = e[m], w[m] = x, e[m] = y;
          }
        }
      }
#pragma unroll
      for (u32 k = 0; k < GENERATIONS; k++)
        if (done + k < a.depth) recent[done + k] = at[k];
      before = (u32)max(newest[GENERATIONS - 1], 0);
    }
  }
}

// nearest returns the entry with the highest score of the newest ones of each place around token i, -1 if there is none, and that score.
// Where no place within the radius has one, the square doubles. recent is the group's. part(e) is a lane's part of entry e's score; a lane has
// one of 32 entries at a time.
template <typename Part>
__device__ __forceinline__ int nearest(const MergeArgs& a, const int* recent, u32 i, float& top, Part part) {
  int r = (int)(i / a.columns), c = (int)(i % a.columns), slot = -1;
  for (int radius = (int)a.radius;; radius = 2 * radius + 1) {
    u32 side = 2 * (u32)radius + 1, all = side * side * a.depth;
    for (u32 from = 0; from < all; from += 32) {
      u32 k = from + lane(), place = k / a.depth;
      int y = r - radius + (int)(place / side), x = c - radius + (int)(place % side), e = -1;
      if (k < all && y >= 0 && y < (int)a.rows && x >= 0 && x < (int)a.columns) e = recent[(i64)(y * (int)a.columns + x) * a.depth + k % a.depth];
      u32 some = __ballot_sync(FULL, e >= 0);
      if (some == 0) continue;
      float v = folded<1>([&](u32 k) { return part(max(0, __shfl_sync(FULL, e, (int)k))); }, 0);
      float best = e >= 0 ? v : __int_as_float(0xff800000);
#pragma unroll
      for (int w = 16; w > 0; w >>= 1) best = max(best, __shfl_xor_sync(FULL, best, w));
      if (slot >= 0 && !(best > top)) continue;
      u32 first = __ballot_sync(FULL, e >= 0 && v == best);  // of equals the one that comes first
      int k0 = __ffs((int)(first != 0 ? first : some)) - 1;
      slot = __shfl_sync(FULL, e, k0), top = __shfl_sync(FULL, v, k0);
    }
    if (slot >= 0 || radius >= (int)max(a.rows, a.columns)) return slot;
  }
}

// merge_around finds the nearest of the newest entries around each token. A warp has a token.
extern "C" __global__ void __launch_bounds__(256, 4) merge_around(const __grid_constant__ MergeArgs a) {
  u32 layer = layerOf(a, blockIdx.z);
  const MergeStore& s = a.stores[layer];
  u32 i = blockIdx.x * 8 + threadIdx.x / 32, g = blockIdx.y;
  if (i >= a.tokens || isLocal(s, g)) return;
  u32 width = a.heads / a.groups * a.headDim;
  const float2* ask = (const float2*)(a.asked ? a.query : probeOf(a, layer)) + ((i64)g * a.tokens + i) * (width / 2);
  const float2* unit = (const float2*)(s.unit + (i64)g * s.slots * width);
  const int* recent = recentOf(a, layer) + (i64)g * a.tokens * a.depth;
  int slot = -1;
  float top = 0.0f;
  if (s.entries[g] > 0 && width == 128) {  // the query stays in registers
    float2 q0 = ask[lane()], q1 = ask[lane() + 32];
    slot = nearest(a, recent, i, top, [&](int e) {
      float2 u0 = unit[(i64)e * 64 + lane()], u1 = unit[(i64)e * 64 + lane() + 32];
      float v = q0.x * u0.x + q0.y * u0.y;
      return v + (q1.x * u1.x + q1.y * u1.y);
    });
  } else if (s.entries[g] > 0) {
    slot = nearest(a, recent, i, top, [&](int e) {
      float v = 0.0f;
      for (u32 k = lane(); k < width / 2; k += 32) {
        float2 q = ask[k], u = unit[(i64)e * (width / 2) + k];
        v += q.x * u.x + q.y * u.y;
      }
      return v;
    });
  }
  if (lane() == 0) bestOf(a, layer)[g * a.tokens + i] = slot, hitsOf(a, layer, COSINE, g)[i] = __float_as_int(top);
}

// merge_accept decides which tokens may join the entry that was found. A warp has a token.
extern "C" __global__ void __launch_bounds__(256) merge_accept(const __grid_constant__ MergeArgs a) {
  u32 layer = layerOf(a, blockIdx.z);
  const MergeStore& s = a.stores[layer];
  u32 i = blockIdx.x * 8 + threadIdx.x / 32, g = blockIdx.y;
  if (i >= a.tokens || isLocal(s, g)) return;
  int slot = bestOf(a, layer)[g * a.tokens + i];
  float cosine = 0.0f, moved = 0.0f;
  bool joins = false;
  if (slot >= 0) {
    if (a.neighbours && !a.asked) cosine = __int_as_float(hitsOf(a, layer, COSINE, g)[i]);  // around has it, by the same sums
    else cosine = dotRows(a, probeOf(a, layer), (i64)g * a.tokens + i, s.unit, (i64)g * s.slots + slot);
    joins = cosine >= a.threshold;
  }
  if (joins && a.lossless) joins = same(a, s, g, (u32)slot, a.at + i);
  if (joins && a.retest > 0 && (stateOf(a, s, JOINED, g)[slot] + 1) % a.retest == 0)
    joins = dotRows(a, s.first, (i64)g * s.slots + slot, probeOf(a, layer), (i64)g * a.tokens + i) >= a.threshold;
  if (joins && a.asks) {
    moved = movement(a, s, g, (u32)slot, a.at + i);
    joins = a.maxError == 0.0 || (double)moved <= a.maxError;
    if (joins && a.maxChange > 0.0) joins = (double)moved * apart(a, s, g, (u32)slot, a.at + i) <= a.maxChange;
  }
  if (lane() != 0) return;
  if (joins) {
    atomicMin(&claimsOf(a, layer, g, 0)[slot], i);
    atomicAdd(&claimsOf(a, layer, g, 1)[slot], 1u);
  }
  hitsOf(a, layer, SLOT, g)[i] = slot;
  hitsOf(a, layer, COSINE, g)[i] = __float_as_int(cosine);
  hitsOf(a, layer, JOINS, g)[i] = joins;
  hitsOf(a, layer, MOVED, g)[i] = __float_as_int(moved);
}

// merge_join lets tokens into their entries. The warp of the first token of an entry takes all of them, in order.
extern "C" __global__ void __launch_bounds__(256) merge_join(const __grid_constant__ MergeArgs a) {
  u32 layer = layerOf(a, blockIdx.z);
  const MergeStore& s = a.stores[layer];
  u32 i = blockIdx.x * 8 + threadIdx.x / 32, g = blockIdx.y;
  if (i >= a.tokens || isLocal(s, g)) return;
  const int *slots = hitsOf(a, layer, SLOT, g), *joins = hitsOf(a, layer, JOINS, g), *cosines = hitsOf(a, layer, COSINE, g);
  int slot = slots[i];
  if (!(joins[i] & 1)) return;
  u32 left = claimsOf(a, layer, g, 1)[slot] - 1;
  if (a.onePerFrame && left > 0) {
    float own = __int_as_float(cosines[i]);
    for (u32 j0 = 0; j0 < a.tokens; j0 += 32) {
      u32 j = j0 + lane();
      bool rival = j < a.tokens && j != i && (joins[j] & 1) && slots[j] == slot;
      float c = rival ? __int_as_float(cosines[j]) : 0.0f;
      if (__any_sync(FULL, rival && (c > own || (c == own && j < i)))) {
        if (lane() == 0) hitsOf(a, layer, JOINS, g)[i] = 3;  // refused: read as bit 0 by rivals, as 3 later
        return;
      }
    }
    left = 0;
  } else if (claimsOf(a, layer, g, 0)[slot] != i) {
    return;
  }
  u32 last = i;
  add(a, s, g, (u32)slot, a.at + i);
  for (u32 j0 = i + 1; j0 < a.tokens && left > 0; j0 += 32) {
    u32 j = j0 + lane();
    u32 more = __ballot_sync(FULL, j < a.tokens && (joins[j] & 1) && slots[j] == slot);
    left -= __popc(more);
    for (; more != 0; more &= more - 1) {
      last = j0 + (u32)__ffs((int)more) - 1;
      add(a, s, g, (u32)slot, a.at + last);
    }
  }
  renew(a, s, g, (u32)slot, last);
}

// merge_found makes entries of the tokens that joined none, and finds room for them where it is lacking. A block has a group of a layer.
// Dynamic shared memory has a bit for each entry.
extern "C" __global__ void __launch_bounds__(FOUND, 3) merge_found(const __grid_constant__ MergeArgs a) {
  extern __shared__ float4 shared[];
  __shared__ u32 count[16 * FOUND];
  __shared__ u32 total;
  __shared__ Room room;
  __shared__ double movedParts[FOUND];
  u32 g = blockIdx.x, layer = a.first + blockIdx.y, t = threadIdx.x, warp = t / 32;
  const MergeStore& s = a.stores[layer];
  u32 perGroup = a.heads / a.groups;
  if (a.frame < 0) {
    if (t < perGroup) s.lengths[g * perGroup + t] = (int)a.ahead + s.entries[g];
    return;
  }
  if (isLocal(s, g)) {
    if (t < 2) s.totals[g * 3 + t] += (double)a.tokens;
    return;
  }
  int *joins = hitsOf(a, layer, JOINS, g), *need = hitsOf(a, layer, MOVED, g);
  u32 n = (u32)s.entries[g], each = (a.tokens + FOUND - 1) / FOUND, lo = min(a.tokens, t * each), hi = min(a.tokens, lo + each), mine = 0;
  double moved = 0.0;
  for (u32 i = lo; i < hi; i++) {
    if (joins[i] != 1) mine++;
    else moved += (double)__int_as_float(need[i]);  // until the tokens that need room are listed there
  }
  count[t] = mine;
  movedParts[t] = moved;
  __syncthreads();
  for (u32 w = 1; w < FOUND; w <<= 1) {
    u32 x = t >= w ? count[t - w] : 0;
    __syncthreads();
    count[t] += x;
    __syncthreads();
  }
  u32 at = count[t] - mine;
  __syncthreads();
  for (u32 i = lo; i < hi; i++)
    if (joins[i] != 1) need[at++] = (int)i;
  if (t == FOUND - 1) total = count[t];
  __syncthreads();
  u32 needed = total, fit = min(needed, ordinaryOf(a, s) - min(n, ordinaryOf(a, s)));
  for (u32 k = warp; k < fit; k += FOUND / 32) putEntry(a, s, layer, g, n + k, (u32)need[k]);
  if (t == 0) {
    room = Room{};
    room.i = fit;
    double sum = 0.0;
    for (u32 k = 0; k < FOUND; k++) sum += movedParts[k];
    room.moved = sum;
    s.entries[g] = (int)(n + fit);
    if (s.slots == 0) room.evicted = (double)needed, room.i = needed;
  }
  __syncthreads();
  if (room.i < needed) {
    u32 *order = orderOf(a, layer, g), f = a.tokens;
    Orders o = {order, order + f, order + 2 * f, order + 3 * f, (float*)order + 4 * f, need, hitsOf(a, layer, SLOT, g), (float*)joins};
    if (sums(a, s)) deal(a, s, layer, g, room.i, needed, o, listsOf(a, layer, g), count, room);
    else makeRoom(a, s, layer, g, needed, o, listsOf(a, layer, g), count, (u32*)shared, room);
  }
  if (t == 0) {
    double* totals = s.totals + g * 3;
    totals[0] += (double)a.tokens;
    totals[1] += room.evicted;
    totals[2] += room.moved;
  }
}
