package vae

import (
	"fmt"

	"longtake/compute"
)

// DefaultPatches is the memory for patches in bytes when Options names none: a strip then stays in a processor's cache. On an
// AMD EPYC (Zen 3, 2 cores, AVX2) 1 to 4 MiB decode at 59 to 69 GFLOP/s, where Linear alone reaches 72; 256 KiB gives 46 and
// 16 MiB 34 to 57. A device that wants fewer and larger products takes more.
const DefaultPatches = 2 << 20

// grid is the size of an image.
type grid struct{ rows, columns int }

func (g grid) pixels() int { return g.rows * g.columns }

// room is what buffers are kept by.
type room struct {
	dt    compute.DType
	elems int
}

// work is the memory of one session. Images are rows [pixels, channels]. They come from a pool that a rehearsal fills: the
// session runs once with a queue that does nothing, and what was taken then is all that will ever be needed. So a
// compute.Meter knows the bytes, and a video allocates nothing on the device.
//
// A convolution multiplies strip by strip: patches of at most limit elements exist at a time.
type work struct {
	dq    compute.Queue
	arena compute.Arena // while rehearsing; nil afterwards
	dt    compute.DType // of images between operations
	free  map[room][]compute.Tensor
	limit int
	need  int // elements of patches that the rehearsal wanted
	wide  int // the widest patch
	most  int // pixels of the largest strip, or of a latent frame

	patches compute.Tensor
	zeros   compute.Tensor // F32 [1, wide]
	nothing compute.Tensor // I32 [most], zeros
	flops   int64          // counted by rehearsals and runs alike
}

func newWork(a compute.Arena, t compute.Types, patches int64) *work {
	if patches == 0 {
		patches = DefaultPatches
	}
	return &work{dq: idle{}, arena: a, dt: t.Activation, free: map[room][]compute.Tensor{}, limit: int(patches) / t.Activation.Size()}
}

// rehearsed allocates what the rehearsal found necessary and ends it. The error is the arena's.
func (w *work) rehearsed() error {
	w.patches = w.arena.Tensor(w.dt, w.need)
	w.zeros, w.nothing = w.arena.Tensor(compute.F32, 1, w.wide), w.arena.Tensor(compute.I32, w.most)
	err := w.arena.Err()
	w.arena, w.flops = nil, 0
	return err
}

// take returns an image with whatever was there before.
func (w *work) take(dt compute.DType, rows, width int) compute.Tensor {
	key := room{dt, rows * width}
	if list := w.free[key]; len(list) > 0 {
		t := list[len(list)-1]
		w.free[key] = list[:len(list)-1]
		return t.Reshape(rows, width)
	}
	if w.arena == nil {
		panic(fmt.Sprintf("vae: no room for %v[%d %d] that the rehearsal did not take", dt, rows, width))
	}
	t := w.arena.Tensor(dt, rows, width)
	if w.arena.Err() != nil {
		return compute.NewTensor(nil, 0, dt, rows, width) // the rehearsal goes on, its end tells
	}
	return t
}

// put gives an image back.
func (w *work) put(t compute.Tensor) {
	key := room{t.DType, t.Elems()}
	w.free[key] = append(w.free[key], t)
}

// filter is a convolution: its weight for patches in the order (frame, row, column, channel). A frame here is also a part of
// the channels that lies in an image of its own.
type filter struct {
	w                       compute.Matrix
	bias                    compute.Tensor
	in, out                 int
	frames                  int
	size, stride, pad, grow int // grow: the image is enlarged so many times before
}

func (f *filter) width() int { return f.frames * f.size * f.size * f.in }

// result is the size of the image that f makes of one of size g.
func (f *filter) result(g grid) grid {
	return grid{g.rows * f.grow / f.stride, g.columns * f.grow / f.stride}
}

// image views rows of channels as [rows, columns, channels].
func image(x compute.Tensor, g grid) compute.Tensor {
	if x.IsZero() {
		return x
	}
	if x.Rank != 2 || x.Shape[0] != g.pixels() {
		panic(fmt.Sprintf("vae: %v is no image of %d x %d", x, g.rows, g.columns))
	}
	channels, step := x.Shape[1], x.Stride[0]
	return compute.Tensor{DType: x.DType, Rank: 3, Buffer: x.Buffer, Offset: x.Offset,
		Shape: [compute.MaxRank]int{g.rows, g.columns, channels}, Stride: [compute.MaxRank]int{g.columns * step, step, 1}}
}

// convolve computes dst = act(f(sources)), each source an image of size g or absent (zeros).
func (w *work) convolve(dst compute.Tensor, f *filter, sources [compute.MaxSources]compute.Tensor, g grid, act compute.Activation) {
	to, width := f.result(g), f.width()
	w.flops += 2 * int64(to.pixels()) * int64(width) * int64(f.out)
	if f.frames == 1 && f.size == 1 && f.stride == 1 && f.grow == 1 {
		w.dq.Linear(dst, sources[0], f.w, f.bias, act)
		return
	}
	u := compute.Unfold{Count: f.frames, Size: f.size, Stride: f.stride, Pad: f.pad, Up: f.grow}
	for i := range f.frames {
		u.Sources[i] = image(sources[i], g)
	}
	if q, ok := w.dq.(compute.Convolver); ok {
		u.Rows, u.Columns = to.rows, to.columns
		q.Convolve(dst, u, f.w, f.bias, act)
		return
	}
	// A strip is whole rows, or a part of one row where a whole one does not fit.
	pixels := max(w.limit/width, 1)
	rows, columns := min(pixels/to.columns, to.rows), to.columns
	if rows == 0 {
		rows, columns = 1, pixels
	}
	w.need, w.wide, w.most = max(w.need, rows*columns*width), max(w.wide, width), max(w.most, rows*columns)
	for u.Row = 0; u.Row < to.rows; u.Row += rows {
		for u.Column = 0; u.Column < to.columns; u.Column += columns {
			u.Rows, u.Columns = min(rows, to.rows-u.Row), min(columns, to.columns-u.Column)
			n, at := u.Rows*u.Columns, u.Row*to.columns+u.Column
			strip := w.strip(n, width)
			w.unfold(strip, u)
			w.dq.Linear(dst.Slice(0, at, at+n), strip, f.w, f.bias, act)
		}
	}
}

// strip returns room for the patches of n pixels.
func (w *work) strip(n, width int) compute.Tensor {
	if w.arena != nil {
		return compute.NewTensor(nil, 0, w.dt, n, width)
	}
	return w.patches.Slice(0, 0, n*width).Reshape(n, width)
}

// normed returns SiLU(x / ||x|| * sqrt(channels) * gamma) for every pixel. Upstream divides by max(||x||, 1e-12); an eps that
// small changes no float32 quotient of a norm above 1e-8, and keeps zeros zeros.
func (w *work) normed(x, gamma compute.Tensor, act compute.Activation) compute.Tensor {
	y := w.take(w.dt, x.Shape[0], x.Shape[1])
	w.dq.Norm(y, x, compute.Norm{RMS: true, Eps: 1e-24 / float32(x.Shape[1]), Weight: gamma})
	if act != compute.None {
		w.dq.Activate(y, y, act)
	}
	return y
}

// memory keeps the last frames that went into a convolution: as many as its depth, two at most, none in a session for one frame.
// Frames are written once and then only read, so that they move in without a copy.
type memory struct {
	past  [2]compute.Tensor // oldest first; the last n are there
	n     int
	depth int

	saved  [2]compute.Tensor
	savedN int
}

// push moves a frame in. The oldest goes back to the pool.
func (m *memory) push(w *work, x compute.Tensor) {
	switch {
	case m.depth == 0:
		w.put(x)
		return
	case m.n == m.depth:
		w.put(m.past[2-m.n])
	default:
		m.n++
	}
	m.past[0], m.past[1] = m.past[1], x
	if m.depth == 1 {
		m.past[0] = compute.Tensor{}
	}
}

// reset forgets everything.
func (m *memory) reset(w *work) {
	for _, t := range m.past[2-m.n:] {
		w.put(t)
	}
	m.past, m.n = [2]compute.Tensor{}, 0
}

// save copies what is there aside; restore brings it back. The first time is in the rehearsal, with the memory full.
func (m *memory) save(w *work) {
	for i := 2 - m.n; i < 2; i++ {
		if m.saved[i].IsZero() {
			m.saved[i] = w.arena.Tensor(w.dt, m.past[i].Shape[0], m.past[i].Shape[1])
		}
		w.dq.Copy(m.saved[i], m.past[i])
	}
	m.savedN = m.n
}

func (m *memory) restore(w *work) {
	for m.n > m.savedN {
		w.put(m.past[2-m.n])
		m.past[2-m.n] = compute.Tensor{}
		m.n--
	}
	for i := 2 - m.n; i < 2; i++ {
		w.dq.Copy(m.past[i], m.saved[i])
	}
}

// causal computes dst = f(the two frames in m, x) and moves x into m.
func (w *work) causal(dst compute.Tensor, f *filter, m *memory, x compute.Tensor, g grid) {
	w.convolve(dst, f, [compute.MaxSources]compute.Tensor{m.past[0], m.past[1], x}, g, compute.None)
	m.push(w, x)
}
