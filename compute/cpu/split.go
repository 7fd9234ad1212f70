package cpu

import (
	"math"
	"unsafe"
)

// Few queries over a long history make too few tiles for many threads: a world model asks 64 queries in 4 heads. Their keys
// are then cut into segments (flash-decoding's way), and what the segments came to is joined in a second pass. Whether and where
// keys are cut depends on sizes alone, never on threads, so that results do not either.
const (
	// splitKeys is the least number of keys of a segment: enough work to hide the cost of keeping and joining it.
	splitKeys = 24 * keyBlock
	// splitTiles is how many tiles are plenty without a cut.
	splitTiles = 32
	// maxSegments bounds the memory for partial results: 68 MB at a headDim of 128 and 2,048 queries in all heads; a world
	// model of 4 heads of 64 takes 4 MB.
	maxSegments = 64
)

// split chooses the segments.
func (t *attendTask) split() {
	t.segments, t.segment = 1, 0
	keys, groups := t.keys.rows, (t.query.rows+groupQueries-1)/groupQueries
	if t.tiled || keys < 2*splitKeys || t.heads*groups >= splitTiles {
		return
	}
	t.segments = min(keys/splitKeys, maxSegments)
	t.segment = padded((keys+t.segments-1)/t.segments, t.blockKeys)
	t.segments = (keys + t.segment - 1) / t.segment
}

// room takes the memory of the segments of all tiles, which only grows.
func (t *attendTask) room(q *Queue, tiles int) {
	if n := tiles * t.segments * t.slotFloats() * 4; t.segments > 1 && len(q.partial) < n {
		q.partial = alignedBytes(n + n/4)
	}
	t.partial = q.partial
}

// slotFloats is the size of what is kept of a tile's segment.
func (t *attendTask) slotFloats() int { return padded(t.group, tileSize) * (t.headDim + 2) }

// only cuts the listed keys down to a segment.
func (t *attendTask) only(s *scratch, seg int) {
	lo, hi := seg*t.segment, (seg+1)*t.segment
	list := s.parts[:0]
	for _, p := range s.parts {
		first, end := max(p.first, lo), min(p.first+p.n, hi)
		if first < end {
			list = append(list, part{first, end - first})
		}
	}
	s.parts = list
}

// slot returns where the sums [lanes*headDim], maxima and sums [lanes] of a tile's segment are kept.
func (t *attendTask) slot(i, lanes int) (acc, top, sum []float32) {
	n := t.slotFloats()
	at := f32s(unsafe.Pointer(unsafe.SliceData(t.partial)), (i+1)*n)[i*n:]
	return at[:lanes*t.headDim], at[lanes*t.headDim:][:lanes], at[lanes*(t.headDim+1):][:lanes]
}

// keep stores what a tile came to in one segment; i counts tiles and segments.
func (t *attendTask) keep(f *flash, i int) {
	acc, top, sum := t.slot(i, f.lanes)
	stat := f32s(f.stat, 2*f.lanes)
	copy(acc, f32s(f.acc, f.lanes*t.headDim))
	copy(top, stat[:f.lanes])
	copy(sum, stat[f.lanes:])
}

// join brings tile i's segments to one maximum and adds them up, in order.
func (t *attendTask) join(s *scratch, f *flash, i int) {
	d := t.headDim
	stat := f32s(f.stat, 3*f.lanes)
	top, sum, rescale := stat[:f.lanes], stat[f.lanes:2*f.lanes], stat[2*f.lanes:]
	for seg := range t.segments {
		_, m, _ := t.slot(i*t.segments+seg, f.lanes)
		for j, v := range m {
			top[j] = max(top[j], v)
		}
	}
	for seg := range t.segments {
		acc, m, part := t.slot(i*t.segments+seg, f.lanes)
		for j := range m {
			rescale[j] = float32(math.Exp(float64(m[j] - top[j])))
			sum[j] += part[j] * rescale[j]
		}
		for lane := 0; lane < f.lanes; {
			w := t.width(f, lane)
			for c := 0; c < w; c += 16 {
				t.class.scaleRows(unsafe.Pointer(&acc[lane*d+c]), w*4, unsafe.Pointer(&rescale[lane+c]), d)
			}
			lane += w
		}
		t.class.add(f.acc, f.acc, unsafe.Pointer(&acc[0]), f.lanes*d)
	}
}
