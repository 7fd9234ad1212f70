package vae

import (
	"encoding/binary"
	"math"

	"longtake/compute"
)

// unfold fills patches, by the queue's ability or by copies of the same elements.
func (w *work) unfold(dst compute.Tensor, u compute.Unfold) {
	if q, ok := w.dq.(compute.Unfolder); ok {
		q.Unfold(dst, u)
		return
	}
	w.unfoldByCopies(dst, u)
}

// unfoldByCopies is Unfold on any queue: zeros everywhere, then a copy for each tap, of every pixel at once.
func (w *work) unfoldByCopies(dst compute.Tensor, u compute.Unfold) {
	w.dq.Gather(dst, w.zeros.Slice(1, 0, dst.Shape[1]), w.nothing.Slice(0, 0, dst.Shape[0]), false)
	for s, from := range u.Sources[:u.Count] {
		if from.IsZero() {
			continue
		}
		channels := from.Shape[2]
		for tap := range u.Size * u.Size {
			at := (s*u.Size*u.Size + tap) * channels
			to := dst.Slice(1, at, at+channels)
			for _, y := range tapped(u, u.Row, u.Rows, tap/u.Size, from.Shape[0]) {
				for _, x := range tapped(u, u.Column, u.Columns, tap%u.Size, from.Shape[1]) {
					w.dq.Copy(every(to, u.Columns*to.Stride[0], to.Stride[0], y.dst, x.dst, y.n, x.n),
						every(from, from.Stride[0], from.Stride[1], y.src, x.src, y.n, x.n))
				}
			}
		}
	}
}

// axis is n elements at regular distances.
type axis struct{ first, step int }

// meeting is where result pixels of a rectangle meet source pixels, along one axis.
type meeting struct {
	dst, src axis
	n        int
}

// tapped returns the pixels first, first+1, ... (count of them, numbered from 0) whose tap meets a source of length size.
// With Up, neighbours that share a source pixel are in different meetings.
func tapped(u compute.Unfold, first, count, tap, size int) (out []meeting) {
	for phase := range u.Up {
		m := meeting{dst: axis{step: u.Up}, src: axis{step: u.Stride}}
		for i := phase; i < count; i += u.Up {
			at := (first+i)*u.Stride + tap - u.Pad
			if at < 0 || at >= size*u.Up {
				continue
			}
			if m.n == 0 {
				m.dst.first, m.src.first = i, at/u.Up
			}
			m.n++
		}
		if m.n > 0 {
			out = append(out, m)
		}
	}
	return out
}

// every views the channels of pixels at regular distances; row and column are strides of whole pixels in elements.
func every(t compute.Tensor, row, column int, y, x axis, rows, columns int) compute.Tensor {
	channels := t.Shape[t.Rank-1]
	return compute.Tensor{DType: t.DType, Rank: 3, Buffer: t.Buffer, Offset: t.Offset + y.first*row + x.first*column,
		Shape: [compute.MaxRank]int{rows, columns, channels}, Stride: [compute.MaxRank]int{y.step * row, x.step * column, 1}}
}

// squash limits a latent frame smoothly, dst = limit*tanh(dst/limit), by the queue's ability or on the host.
func (w *work) squash(t compute.Tensor, limit float32) {
	if q, ok := w.dq.(compute.Squasher); ok {
		q.Squash(t, t, limit)
		return
	}
	b, le := make([]byte, t.Bytes()), binary.LittleEndian
	w.dq.Download(b, t)
	for i := 0; i < len(b); i += 4 {
		v := float64(math.Float32frombits(le.Uint32(b[i:])))
		le.PutUint32(b[i:], math.Float32bits(float32(float64(limit)*math.Tanh(v/float64(limit)))))
	}
	w.dq.Upload(t, b)
}
