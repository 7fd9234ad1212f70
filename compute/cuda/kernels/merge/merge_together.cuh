// What a full group with a rest does, for all tokens of a frame at once; see rest.go of accel/tempcache for the rules.
// Gone is what goes into the rest: its entries, with how many members each has, and tokens.
struct Gone {
  const u32* ids;
  float* share;
  const int* tokens;
  u32 entries, all;  // the tokens are those from entries on
};

// countUp takes counts, square lengths and the newest place of what is gone into the rest, and returns its members before and after; all
// threads of the block.
__device__ __forceinline__ int2 countUp(const MergeArgs& a, const MergeStore& s, u32 g, const Gone& x, bool live) {
  __shared__ double weights[FOUND / 32];
  __shared__ float squares[FOUND / 32];
  __shared__ u64 newest[FOUND / 32];  // below the time, which of what is gone has it, from 1 on
  __shared__ int members[FOUND / 32];
  u32 rest = ordinaryOf(a, s), t = threadIdx.x, warp = t / 32;
  const int *all = stateOf(a, s, MEMBERS, g), *time = stateOf(a, s, TIME, g), *cell = stateOf(a, s, CELL, g);
  const float* square = (const float*)stateOf(a, s, SQUARE, g);
  int n = 0;
  double w = 0.0;
  float q = 0.0f;
  u64 last = 0;
  for (u32 k = t; k < x.entries; k += FOUND) {
    u32 e = x.ids[k];
    int m = all[e];
    x.share[k] = (float)m;
    n += m, w += s.weight[(i64)g * s.slots + e], q += (float)m * square[e];
    last = max(last, (u64)(u32)(time[e] + 1) << 32 | (k + 1));
  }
  for (u32 k = x.entries + warp; k < x.all; k += FOUND / 32) {
    float own = a.spread > 0.0 ? squareOf(a, s, g, a.at + (u32)x.tokens[k]) : 0.0f;
    if (lane() == 0) n++, w += 1.0, q += own, last = max(last, (u64)(u32)(a.frame + 1) << 32 | (k + 1));
  }
#pragma unroll
  for (int k = 16; k > 0; k >>= 1) {
    n += __shfl_xor_sync(FULL, n, k), w += __shfl_xor_sync(FULL, w, k), q += __shfl_xor_sync(FULL, q, k);
    last = max(last, __shfl_xor_sync(FULL, last, k));
  }
  if (lane() == 0) members[warp] = n, weights[warp] = w, squares[warp] = q, newest[warp] = last;
  __syncthreads();
  int before = live ? all[rest] : 0, every = before;
  w = live ? s.weight[(i64)g * s.slots + rest] : 0.0, q = live ? (float)before * square[rest] : 0.0f;
  last = live ? (u64)(u32)(time[rest] + 1) << 32 : 0;
  for (u32 k = 0; k < FOUND / 32; k++) every += members[k], w += weights[k], q += squares[k], last = max(last, newest[k]);
  u32 which = (u32)last;
  int place = which == 0 ? cell[rest] : which <= x.entries ? cell[x.ids[which - 1]] : x.tokens[which - 1];
  __syncthreads();
  if (t == 0) {
    stateOf(a, s, MEMBERS, g)[rest] = every, stateOf(a, s, TIME, g)[rest] = (int)(last >> 32) - 1, stateOf(a, s, CELL, g)[rest] = place;
    stateOf(a, s, NEAR, g)[rest] = -1, stateOf(a, s, JOINED, g)[rest] = 0;
    ((float*)stateOf(a, s, SQUARE, g))[rest] = q / (float)every;
    s.weight[(i64)g * s.slots + rest] = a.countCap > 0.0 ? min(w, a.countCap) : w;
    s.entries[g] = (int)s.slots;
  }
  return make_int2(before, every);
}

// sumUp takes what is gone into the rest, a thread an element of its key and value; all threads of the block.
__device__ __noinline__ double sumUp(const MergeArgs& a, const MergeStore& s, u32 g, const Gone& x) {
  u32 rest = ordinaryOf(a, s), n = a.heads / a.groups, half = n * a.headDim;
  bool live = s.entries[g] > (int)rest;
  int2 members = countUp(a, s, g, x, live);
  __syncthreads();
  for (u32 i = threadIdx.x; i < 2 * half; i += FOUND) {  // keys, then values
    u32 h = g * n + i % half / a.headDim, d = i % a.headDim;
    bool key = i < half, apart = !key && s.means != nullptr;
    float* at = (apart ? s.means + (i64)h * s.slots * a.headDim : (float*)(key ? s.raw : s.values) + slotOf(a, s, h, a.dense) * a.headDim) + d;
    float sum = live ? (float)members.x * at[(i64)rest * a.headDim] : 0.0f;
#pragma unroll 8
    for (u32 k = 0; k < x.entries; k++) sum += x.share[k] * at[(i64)x.ids[k] * a.headDim];
    const char* from = key ? s.raw : s.values;
#pragma unroll 4
    for (u32 k = x.entries; k < x.all; k++) {
      i64 w = slotOf(a, s, h, a.at + (u32)x.tokens[k]) * a.headDim + d;
      sum += !key && a.half ? __uint_as_float((u32)((const unsigned short*)from)[w] << 16) : ((const float*)from)[w];
    }
    at[(i64)rest * a.headDim] = sum / (float)members.y;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    int time = stateOf(a, s, TIME, g)[rest], cell = stateOf(a, s, CELL, g)[rest];
    for (u32 h = g * n; h < (g + 1) * n; h++) {
      if (s.means != nullptr) save(s.values, slotOf(a, s, h, a.dense + rest), a.half, a.headDim, floats(s.means, (i64)h * s.slots + rest, a.headDim));
      setPlace(a, s, h, rest, time, (u32)cell);
    }
    rotate(a, s, g, rest, time, (u32)cell);
    setCount(a, s, g, rest);
  }
  __syncthreads();
  return (double)(members.y - members.x);
}

// supplant lets tokens take the places of the entries of least worth; tokens for which there is no other place, the last of them, go into the
// rest themselves. All threads of the block, as below.
__device__ __noinline__ void supplant(const MergeArgs& a, const MergeStore& s, u32 layer, u32 g, const int* tokens, u32 all, u32* work, u32* count, Room& room) {
  u32* ids = work + stepOf(a);
  u32 few = select(s.slots, all, [&](u32 e, u32& key) { return rankOf(a, s, g, false, e, key); }, work, ids, count);
  Gone x = {ids, (float*)work, tokens, few, all};
  double gone = sumUp(a, s, g, x);
  for (u32 k = threadIdx.x / 32; k < few; k += FOUND / 32) putEntry(a, s, layer, g, ids[k], (u32)tokens[k]);
  if (threadIdx.x == 0) room.evicted += gone;
}

// Claims are, for every entry, the nearest remembered pair that it belongs to.
struct Claims {
  u32 *pair, *key, *id;  // pair: the key of the pair that an entry remembers, NONE without one
  const int* near;

  __device__ __forceinline__ bool nearest(u32 e) const {
    u32 k = pair[e], q = k == NONE ? e : (u32)near[e];
    return k != NONE && key[e] == k && id[e] == e && key[q] == k && id[q] == e;
  }
};

// claim computes the cosines of all remembered pairs, and which of them reach the floor and have no nearer one at either entry.
__device__ __noinline__ void claim(const MergeArgs& a, const MergeStore& s, u32 g, const Claims& c) {
  u32 t = threadIdx.x, n = ordinaryOf(a, s), half = a.heads / a.groups * a.headDim / 2;
  const float2* unit = (const float2*)s.unit + (i64)g * s.slots * half;
  for (u32 e0 = t / 32 * 32; e0 < n; e0 += FOUND) {
    u32 e = e0 + lane();
    int q = e < n ? c.near[e] : -1;
    bool pair = q >= 0 && q != (int)e;
    float v = folded<1>([&](u32 k) {
      const float2 *x = unit + (i64)min(e0 + k, n - 1) * half, *y = unit + (i64)max(0, __shfl_sync(FULL, q, (int)k)) * half;
      float sum = 0.0f;
      for (u32 i = lane(); i < half; i += 32) sum += x[i].x * y[i].x + x[i].y * y[i].y;
      return sum;
    }, 0);
    if (e >= n) continue;
    if (pair) stateOf(a, s, NEARNESS, g)[e] = __float_as_int(v);
    c.pair[e] = pair && v >= a.floor ? ordered(-v) : NONE;
    c.key[e] = c.id[e] = NONE;
  }
  __syncthreads();
  for (u32 e = t; e < n; e += FOUND)
    if (u32 k = c.pair[e]; k != NONE) atomicMin(&c.key[e], k), atomicMin(&c.key[c.near[e]], k);
  __syncthreads();
  for (u32 e = t; e < n; e += FOUND) {
    u32 k = c.pair[e];
    if (k == NONE) continue;
    if (c.key[e] == k) atomicMin(&c.id[e], e);
    if (u32 q = (u32)c.near[e]; c.key[q] == k) atomicMin(&c.id[q], e);
  }
  __syncthreads();
}

// joinAll lets the tokens that merges name, counted from from on, join their entries: the warp of the first token of an entry takes all of them,
// in order. It returns a warp's share of by how much logits moved.
__device__ __noinline__ double joinAll(const MergeArgs& a, const MergeStore& s, u32 g, u32 from, u32 joins, const Orders& o, u32* work) {
  u32 t = threadIdx.x, step = stepOf(a), *first = work + step, *many = work + 2 * step, *joined = (u32*)o.now;
  for (u32 e = t; e < s.slots; e += FOUND) first[e] = NONE, many[e] = 0;
  __syncthreads();
  for (u32 c = t; c < joins; c += FOUND) {
    u32 token = (u32)o.need[from + o.ids[c]], slot = (u32)o.slots[token];
    joined[o.ids[c]] = 1, o.keys2[c] = token, o.ids2[c] = slot;
    atomicMin(&first[slot], c);
    atomicAdd(&many[slot], 1u);
  }
  __syncthreads();
  double moved = 0.0;
  for (u32 c = t / 32; c < joins; c += FOUND / 32) {
    u32 slot = o.ids2[c], left = many[slot], last = 0;
    if (first[slot] != c) continue;
    for (u32 c0 = c; left > 0; c0 += 32) {
      u32 more = __ballot_sync(FULL, c0 + lane() < joins && o.ids2[c0 + lane()] == slot);
      left -= (u32)__popc(more);
      for (; more != 0; more &= more - 1) {
        last = o.keys2[c0 + (u32)__ffs((int)more) - 1];
        if (a.asks) moved += (double)movement(a, s, g, slot, a.at + last);
        add(a, s, g, slot, a.at + last);
      }
    }
    renew(a, s, g, slot, last);
  }
  __syncthreads();
  return moved;
}

// uniteAll makes one entry of each pair that merges name, counted from first on, the one with the newer position, and notes the other's slot in Orders.keys.
__device__ __noinline__ double uniteAll(const MergeArgs& a, const MergeStore& s, u32 g, u32 first, u32 joins, u32 few, const Orders& o) {
  int *near = stateOf(a, s, NEAR, g), *time = stateOf(a, s, TIME, g), *all = stateOf(a, s, MEMBERS, g);
  double moved = 0.0;
  for (u32 c = joins + threadIdx.x / 32; c < few; c += FOUND / 32) {
    u32 to = o.ids[c] - first, from = (u32)near[to];
    if (time[to] < time[from] || (time[to] == time[from] && all[to] < all[from])) {
      u32 x = to;
      to = from, from = x;
    }
    __syncwarp();
    moved += unite(a, s, g, to, from);
    if (lane() == 0) {
      o.keys[c] = from;
      if (near[to] == (int)from) near[to] = -1;
    }
    __syncwarp();
  }
  __syncthreads();
  return moved;
}

// leave lists the tokens from from to needed that joined nothing at the start of Orders.need, and returns how many they are.
__device__ __forceinline__ u32 leave(u32 from, u32 needed, const Orders& o, u32* count) {
  u32 t = threadIdx.x, warp = t / 32, all = 0;
  const u32* joined = (const u32*)o.now;
  for (u32 k0 = 0; k0 < needed - from; k0 += FOUND) {
    u32 k = k0 + t, in = k < needed - from && joined[k] == 0, token = in ? (u32)o.need[from + k] : 0;
    u32 mask = __ballot_sync(FULL, in);
    if (lane() == 0) count[warp] = (u32)__popc(mask);
    __syncthreads();
    u32 at = all + (u32)__popc(mask & ((1u << lane()) - 1));
    for (u32 w = 0; w < FOUND / 32; w++) {
      if (w < warp) at += count[w];
      all += count[w];
    }
    if (in) o.need[at] = (int)token;
    __syncthreads();
  }
  return all;
}

// deal finds room for the tokens from from to needed: of these with their nearest entries and of remembered pairs the closest are merged, as many as
// there are tokens. Every pair that becomes one makes room for a token; the last of those that remain are supplant's.
__device__ __noinline__ void deal(const MergeArgs& a, const MergeStore& s, u32 layer, u32 g, u32 from, u32 needed, const Orders& o, u32* work, u32* count, Room& room) {
  __shared__ u32 joins;
  __shared__ double movedParts[FOUND / 32];
  u32 t = threadIdx.x, warp = t / 32, step = stepOf(a), n = needed - from;
  const int *time = stateOf(a, s, TIME, g), *cosines = hitsOf(a, layer, COSINE, g);
  for (u32 k = t; k < n; k += FOUND) ((u32*)o.now)[k] = 0;
  for (u32 k0 = t / 32 * 32; k0 < n; k0 += FOUND) {
    u32 k = k0 + lane(), token = k < n ? (u32)o.need[from + k] : 0;
    int hit = k < n ? o.slots[token] : -1;
    float own = hit < 0 ? -2.0f : __int_as_float(cosines[token]);
    u32 changed = __ballot_sync(FULL, hit >= 0 && time[max(0, hit)] == a.frame);  // entries that tokens joined are elsewhere now
    for (; changed != 0; changed &= changed - 1) {
      int l = __ffs((int)changed) - 1;
      float now = ownOf(a, s, g, __shfl_sync(FULL, token, l), (u32)__shfl_sync(FULL, hit, l));
      if ((int)lane() == l) own = now;
    }
    if (k < n) o.own[k] = own;
  }
  Claims c = {work, work + step, work + 2 * step, stateOf(a, s, NEAR, g)};
  if (t == 0) joins = 0;
  claim(a, s, g, c);
  u32 few = select(n + ordinaryOf(a, s), n, [&](u32 i, u32& key) {
    key = i < n ? ordered(-o.own[i]) : c.pair[i - n];
    return i < n ? o.own[i] >= a.floor : c.nearest(i - n);
  }, o.keys, o.ids, count);
  for (u32 k = t; k < few; k += FOUND)
    if (o.ids[k] < n && (k + 1 == few || o.ids[k + 1] >= n)) joins = k + 1;
  __syncthreads();
  u32 united = few - joins;
  double moved = joinAll(a, s, g, from, joins, o, work);
  moved += uniteAll(a, s, g, n, joins, few, o);
  if (lane() == 0) movedParts[warp] = moved;
  u32 left = leave(from, needed, o, count);
  for (u32 k = warp; k < united; k += FOUND / 32) putEntry(a, s, layer, g, o.keys[joins + k], (u32)o.need[k]);
  __syncthreads();
  if (t == 0)
    for (u32 w = 0; w < FOUND / 32; w++) room.moved += movedParts[w];
  if (left > united) supplant(a, s, layer, g, o.need + united, left - united, work, count, room);
}
