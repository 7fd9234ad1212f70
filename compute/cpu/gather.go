package cpu

import (
	"fmt"
	"math"

	"longtake/compute"
)

// Gather computes dst[i] = table[index[i]], or += with accumulate.
func (q *Queue) Gather(dst, table, index compute.Tensor, accumulate bool) {
	wantFloat("gather", dst)
	wantType("gather", table, compute.F32)
	wantType("gather", index, compute.I32)
	if dst.Rank != 2 || table.Rank != 2 || index.Rank != 1 || dst.Shape[1] != table.Shape[1] || dst.Shape[0] != index.Shape[0] {
		panic(fmt.Sprintf("cpu: gather into %v from %v by %v", dst, table, index))
	}
	if dst.Elems() == 0 {
		return
	}
	d, from, s := linesOf(dst, false), linesOf(table, false), q.scratch
	stride := index.Stride[0]
	idx := i32s(address(index), (d.rows-1)*stride+1)
	for i := range d.rows {
		k := int(idx[i*stride])
		if k < 0 || k >= from.rows {
			panic(fmt.Sprintf("cpu: gather index %d of table %v", k, table))
		}
		row := from.at(k, 0)
		to := d.out(s, i, 0, d.width)
		if accumulate {
			q.class.add(to, d.load(q.class, s, slotX, i, 0, d.width), row, d.width)
		} else {
			copy(f32s(to, d.width), f32s(row, d.width))
		}
		d.store(q.class, to, i, 0, d.width)
	}
}

// TimeEmbed writes the sinusoids of each value.
func (q *Queue) TimeEmbed(dst, t compute.Tensor, maxPeriod float64) {
	wantFloat("time embedding", dst)
	wantType("time embedding", t, compute.F32)
	if dst.Rank != 2 || t.Rank != 1 || t.Shape[0] != dst.Shape[0] || dst.Shape[1]%2 != 0 {
		panic(fmt.Sprintf("cpu: time embedding %v of %v", dst, t))
	}
	if dst.Elems() == 0 {
		return
	}
	d, half, s := linesOf(dst, false), dst.Shape[1]/2, q.scratch
	values := f32s(address(t), (d.rows-1)*t.Stride[0]+1)
	for i := range d.rows {
		to := d.out(s, i, 0, d.width)
		row := f32s(to, d.width)
		for j := range half {
			angle := float64(values[i*t.Stride[0]]) * math.Pow(maxPeriod, -float64(j)/float64(half))
			sin, cos := math.Sincos(angle)
			row[j], row[half+j] = float32(cos), float32(sin)
		}
		d.store(q.class, to, i, 0, d.width)
	}
}
