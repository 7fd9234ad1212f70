package world

// source is the random number source of a world: a linear congruential state
// whose output is hashed. Its sequence is part of what a seed means.
type source struct{ state uint32 }

// newSource starts the sequence of a world's seed.
func newSource(seed uint32) *source {
	r := &source{state: hash32(seed*2654435761 + 12345)}
	r.next()
	return r
}

func (r *source) next() uint32 {
	r.state = r.state*747796405 + 2891336453
	return hash32(r.state)
}

// intn returns a number in [0, n).
func (r *source) intn(n int) int {
	return int(uint64(r.next()) * uint64(uint32(n)) >> 32)
}

// float returns a multiple of 2^-24 in [0, 1).
func (r *source) float() f32 { return unit(r.next()) }

// shuffle permutes list in place (Fisher-Yates from the end).
func (r *source) shuffle(list []int) {
	for i := len(list) - 1; i > 0; i-- {
		j := r.intn(i + 1)
		list[i], list[j] = list[j], list[i]
	}
}

// hash32 mixes the bits of x (the "lowbias32" construction).
func hash32(x uint32) uint32 {
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	x ^= x >> 16
	return x
}

// unit maps the upper 24 bits of x to [0, 1) without rounding.
func unit(x uint32) f32 { return f32(f32(x>>8) * (1.0 / (1 << 24))) }

// noise is a field of hashed numbers on the integer lattice. It is split in two,
// the field and one of its rows, so that what is shared between samples is hashed once.
type noise uint32

type noiseRow uint32

func newNoise(seed uint32) noise { return noise(hash32(seed)) }

func (n noise) row(y int) noiseRow { return noiseRow(hash32(uint32(y)*0x85EBCA77 ^ uint32(n))) }

// at returns the number of the row at x, in [0, 1).
func (r noiseRow) at(x int) f32 { return unit(hash32(uint32(x)*0x9E3779B1 ^ uint32(r))) }

// smooth interpolates the field at a point between lattice points.
func (n noise) smooth(x, y f32) f32 {
	ix, iy := floorInt(x), floorInt(y)
	fx, fy := ease(x-f32(ix)), ease(y-f32(iy))
	upper, lower := n.row(iy), n.row(iy+1)
	a, b := upper.at(ix), upper.at(ix+1)
	c, d := lower.at(ix), lower.at(ix+1)
	return a + f32((b-a)*fx) + f32((c-a)*fy) + f32(f32((a-b-c+d)*fx)*fy)
}
