package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"longtake/compute"
)

// unfoldTask copies patches; a tile is some pixels of the result. Everything counts bytes.
type unfoldTask struct {
	u             compute.Unfold // without its tensors
	dst           unsafe.Pointer
	dstRow        int
	sources       [compute.MaxSources]unsafe.Pointer // nil: zeros
	row           [compute.MaxSources]int            // from row to row of a source
	column        [compute.MaxSources]int
	height, width int // of a source
	pixel         int // size of a pixel's channels
	step          int // pixels a tile
}

// Unfold gathers the patches of a convolution, see compute.Unfolder.
func (q *Queue) Unfold(dst compute.Tensor, u compute.Unfold) {
	shape := checkUnfold(dst, &u)
	if dst.Elems() == 0 {
		return
	}
	size := dst.DType.Size()
	t := &q.unfold
	*t = unfoldTask{dst: address(dst), dstRow: dst.Stride[0] * size, height: shape[0], width: shape[1], pixel: shape[2] * size}
	for i, s := range u.Sources[:u.Count] {
		if s.Rank != 0 {
			t.sources[i], t.row[i], t.column[i] = address(s), s.Stride[0]*size, s.Stride[1]*size
		}
	}
	u.Sources = [compute.MaxSources]compute.Tensor{}
	t.u = u
	t.step = max(1, worthIt/dst.Shape[1])
	q.run(t, (dst.Shape[0]+t.step-1)/t.step)
}

// checkUnfold panics unless everything fits, and returns the shape of the sources.
func checkUnfold(dst compute.Tensor, u *compute.Unfold) (shape [compute.MaxRank]int) {
	if u.Count < 1 || u.Count > compute.MaxSources || u.Size < 1 || u.Stride < 1 || u.Up < 1 || u.Pad < 0 || u.Row < 0 || u.Column < 0 {
		panic(fmt.Sprintf("cpu: unfold of %d sources, size %d, stride %d, pad %d, up %d, from (%d, %d)", u.Count, u.Size, u.Stride, u.Pad, u.Up, u.Row, u.Column))
	}
	wantFloat("unfold", dst)
	found := false
	for i := range u.Count {
		s := u.Sources[i]
		if s.Rank == 0 {
			continue
		}
		if s.Rank != 3 || s.DType != dst.DType || s.Stride[2] != 1 && s.Shape[2] > 1 || found && s.Shape != shape {
			panic(fmt.Sprintf("cpu: unfold of %v into %v", s, dst))
		}
		found, shape = true, s.Shape
	}
	width := u.Count * u.Size * u.Size * shape[2]
	if !found || dst.Rank != 2 || dst.Shape[0] != u.Rows*u.Columns || dst.Shape[1] != width || dst.Stride[1] != 1 && width > 1 {
		panic(fmt.Sprintf("cpu: unfold of %d images %v, %d x %d pixels of size %d, into %v", u.Count, append([]int{}, shape[:3]...), u.Rows, u.Columns, u.Size, dst))
	}
	return shape
}

func (t *unfoldTask) tile(_ *scratch, i int) {
	part := t.u.Size * t.u.Size * t.pixel // of one source in a patch
	end := min((i+1)*t.step, t.u.Rows*t.u.Columns)
	for n := i * t.step; n < end; n++ {
		y := (t.u.Row+n/t.u.Columns)*t.u.Stride - t.u.Pad
		x := (t.u.Column+n%t.u.Columns)*t.u.Stride - t.u.Pad
		to := unsafe.Add(t.dst, n*t.dstRow)
		for s := range t.u.Count {
			if t.sources[s] == nil {
				clear(unsafe.Slice((*byte)(to), part))
			} else {
				t.patch(to, s, y, x)
			}
			to = unsafe.Add(to, part)
		}
	}
}

// patch copies one source's taps for the patch whose first tap is (y, x).
func (t *unfoldTask) patch(to unsafe.Pointer, s, y, x int) {
	up, run := t.u.Up, t.u.Size*t.pixel
	whole := up == 1 && t.column[s] == t.pixel && x >= 0 && x+t.u.Size <= t.width
	for i := y; i < y+t.u.Size; i++ {
		line := unsafe.Slice((*byte)(to), run)
		to = unsafe.Add(to, run)
		if i < 0 || i >= t.height*up {
			clear(line)
			continue
		}
		from := unsafe.Add(t.sources[s], i/up*t.row[s])
		if whole {
			copy(line, unsafe.Slice((*byte)(unsafe.Add(from, x*t.pixel)), run))
			continue
		}
		for j := x; j < x+t.u.Size; j++ {
			if j < 0 || j >= t.width*up {
				clear(line[:t.pixel])
			} else {
				copy(line[:t.pixel], unsafe.Slice((*byte)(unsafe.Add(from, j/up*t.column[s])), t.pixel))
			}
			line = line[t.pixel:]
		}
	}
}

// squashTask computes limit*tanh(x/limit); a tile is some rows.
type squashTask struct {
	class  *class
	dst, x lines
	limit  float64
	step   int
}

// Squash limits smoothly, see compute.Squasher.
func (q *Queue) Squash(dst, x compute.Tensor, limit float32) {
	wantSame("squash", dst, x)
	wantFloat("squash", dst, x)
	if dst.Elems() == 0 {
		return
	}
	t := &q.squash
	*t = squashTask{class: q.class, dst: linesOf(dst, false), x: linesOf(x, false), limit: float64(limit)}
	t.step = max(1, worthIt/16/t.x.width) // a tanh costs some 16 multiply-adds
	q.run(t, (t.x.rows+t.step-1)/t.step)
}

func (t *squashTask) tile(s *scratch, i int) {
	n := t.x.width
	for row := i * t.step; row < min((i+1)*t.step, t.x.rows); row++ {
		x, to := f32s(t.x.load(t.class, s, slotX, row, 0, n), n), t.dst.out(s, row, 0, n)
		dst := f32s(to, n)
		for j, v := range x {
			dst[j] = float32(t.limit * math.Tanh(float64(v)/t.limit))
		}
		t.dst.store(t.class, to, row, 0, n)
	}
}
