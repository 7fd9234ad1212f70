package cuda

import (
	"longtake/compute"
)

// noiseArgs mirrors NoiseArgs in kernels/noise/noise.cu.
type noiseArgs struct {
	dst, count, seed uint64
	chunk, step      uint32
}

// Noise fills dst (contiguous) with the normal numbers of compute.FillNoise, bit for bit.
func (q *queue) Noise(dst compute.Tensor, key compute.NoiseKey) {
	if q.err != nil {
		return
	}
	if !(dst.Contiguous()) {
		mismatch("noise", dst)
	}
	if dst.Elems() == 0 {
		return
	}
	a := &q.noiseArgs
	*a = noiseArgs{dst: address(dst), count: uint64(dst.Elems()), seed: key.Seed, chunk: key.Chunk, step: key.Step}
	const threads, perBlock = 512, 4 * 512
	blocks := min((dst.Elems()+perBlock-1)/perBlock, 2*q.device.limit.multiprocessors) // each fills tables of 21 KB first
	q.launch("noise", q.device.kernels.noise[half("noise", dst)], [3]uint32{uint32(blocks), 1, 1}, [3]uint32{threads, 1, 1}, 0, argument(a))
}
