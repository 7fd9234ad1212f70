package cpu

import (
	"fmt"

	"longtake/compute"
)

// noiseTask fills a contiguous tensor; each tile is a run of element numbers.
type noiseTask struct {
	class *class
	dst   lines
	key   compute.NoiseKey
}

// noiseChunk is the elements of a tile, a multiple of the 16 that assembly writes at a time.
const noiseChunk = 2048

// Noise fills dst with standard normal numbers, bit for bit those of compute.FillNoise.
func (q *Queue) Noise(dst compute.Tensor, key compute.NoiseKey) {
	wantFloat("noise", dst)
	if !dst.Contiguous() {
		panic(fmt.Sprintf("cpu: noise into the strided %v", dst))
	}
	if dst.Elems() == 0 {
		return
	}
	q.noise = noiseTask{class: q.class, dst: linesOf(dst, true), key: key}
	q.run(&q.noise, (dst.Elems()+noiseChunk-1)/noiseChunk)
}

func (t *noiseTask) tile(s *scratch, i int) {
	first := i * noiseChunk
	n := min(noiseChunk, t.dst.width-first)
	to := t.dst.out(s, 0, first, n)
	t.class.noise(f32s(to, n), t.key, uint64(first))
	t.dst.store(t.class, to, 0, first, n)
}
