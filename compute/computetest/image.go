package computetest

import (
	"math"
	"testing"

	"longtake/compute"
)

// RunImages examines the abilities of compute/image.go that the device's queues have. It fails when they have none.
func RunImages(t *testing.T, open func(t *testing.T) compute.Device, tol Tolerance) {
	dev, seed := open(t), newSeed(t)
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatalf("new queue: %v", err)
	}
	_, unfolds := dq.(compute.Unfolder)
	_, squashes := dq.(compute.Squasher)
	_, pixels := dq.(compute.Pixeler)
	_, convolves := dq.(compute.Convolver)
	dq.Close()
	if !unfolds && !squashes {
		t.Errorf("the queue has no ability for images")
	}
	for _, e := range []struct {
		name string
		has  bool
		run  func(*suite)
	}{
		{"unfold", unfolds, examUnfold},
		{"unfold chosen at random", unfolds, examUnfoldRandom},
		{"unfold wrong shapes", unfolds, examUnfoldPanics},
		{"convolve", convolves, examConvolve},
		{"pixels", pixels, examPixels},
		{"squash", squashes, examSquash},
	} {
		if e.has {
			t.Run(e.name, func(t *testing.T) { examine(t, dev, tol, seed, e.name, e.run) })
		}
	}
	if err := dev.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// unfold is compute.Unfold with arrays; absent sources are zeros.
func unfold(sources []array, height, width, channels int, u compute.Unfold) array {
	out := newArray(u.Rows*u.Columns, u.Count*u.Size*u.Size*channels)
	at := 0
	for n := range u.Rows * u.Columns {
		for _, s := range sources {
			for tap := range u.Size * u.Size {
				y := (u.Row+n/u.Columns)*u.Stride + tap/u.Size - u.Pad
				x := (u.Column+n%u.Columns)*u.Stride + tap%u.Size - u.Pad
				for c := range channels {
					if !s.absent() && y >= 0 && x >= 0 && y < height*u.Up && x < width*u.Up {
						out.data[at] = s.data[(y/u.Up*width+x/u.Up)*channels+c]
					}
					at++
				}
			}
		}
	}
	return out
}

// tryUnfold compares one call with the truth, bit for bit.
func (s *suite) tryUnfold(dt compute.DType, lay layout, height, width, channels int, absent [compute.MaxSources]bool, u compute.Unfold) {
	s.Helper()
	sources := make([]array, u.Count)
	for i := range sources {
		if !absent[i] {
			sources[i] = s.normal(dt, 1, height, width, channels)
			u.Sources[i] = s.in(sources[i], dt, lay)
		}
	}
	dst := s.out(dt, pick(s, dense, padded, odd), u.Rows*u.Columns, u.Count*u.Size*u.Size*channels)
	s.dq.(compute.Unfolder).Unfold(dst.view, u)
	s.exact(dst, unfold(sources, height, width, channels, u))
}

func examUnfold(s *suite) {
	none := [compute.MaxSources]bool{}
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		for _, lay := range []layout{dense, padded, odd} {
			for _, c := range []struct {
				what   string
				absent [compute.MaxSources]bool
				u      compute.Unfold
			}{
				{"3x3 of the whole image", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}},
				{"three frames", none, compute.Unfold{Count: 3, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}},
				{"the first frame of a video", [3]bool{true, true, false}, compute.Unfold{Count: 3, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}},
				{"a memory that is empty", [3]bool{false, true}, compute.Unfold{Count: 2, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}},
				{"time only", none, compute.Unfold{Count: 3, Size: 1, Stride: 1, Up: 1, Rows: 6, Columns: 8}},
				{"a strip", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Row: 2, Rows: 3, Columns: 8}},
				{"part of a row", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Row: 5, Column: 3, Rows: 1, Columns: 5}},
				{"half the size, zeros right and below", none, compute.Unfold{Count: 1, Size: 3, Stride: 2, Up: 1, Rows: 3, Columns: 4}},
				{"twice the size", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 2, Rows: 12, Columns: 16}},
				{"a strip of twice the size", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 2, Row: 7, Rows: 5, Columns: 16}},
				{"nothing", none, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Columns: 8}},
			} {
				s.begin("%s, %v, layout %d", c.what, dt, lay)
				s.tryUnfold(dt, lay, 6, 8, 5, c.absent, c.u)
			}
		}
	}
}

func examUnfoldRandom(s *suite) {
	for range few(make([]int, 60)) {
		height, width, channels := 1+s.rng.IntN(9), 1+s.rng.IntN(9), 1+s.rng.IntN(40)
		u := compute.Unfold{Count: 1 + s.rng.IntN(compute.MaxSources), Size: 1 + s.rng.IntN(4), Stride: 1 + s.rng.IntN(3), Pad: s.rng.IntN(3),
			Up: 1 + s.rng.IntN(3), Row: s.rng.IntN(5), Column: s.rng.IntN(5), Rows: 1 + s.rng.IntN(12), Columns: 1 + s.rng.IntN(12)}
		var absent [compute.MaxSources]bool
		for i := range u.Count - 1 {
			absent[i] = s.rng.IntN(3) == 0
		}
		s.begin("images %dx%dx%d, %+v", height, width, channels, u)
		s.tryUnfold(pick(s, compute.F32, compute.BF16), pick(s, dense, padded, odd), height, width, channels, absent, u)
	}
}

func examUnfoldPanics(s *suite) {
	s.begin("wrong shapes")
	f32 := func(shape ...int) compute.Tensor { return s.in(newArray(shape...), compute.F32, dense) }
	image, dst := f32(4, 6, 8), f32(24, 72)
	u := compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 4, Columns: 6}
	try := func(what string, dst, image compute.Tensor, u compute.Unfold) {
		u.Sources[0] = image
		s.panics(what, func() { s.dq.(compute.Unfolder).Unfold(dst, u) }, dst)
	}
	try("unfold, width", f32(24, 71), image, u)
	try("unfold, pixels", f32(23, 72), image, u)
	try("unfold, rank", dst, f32(24, 8), u)
	try("unfold, type", dst, s.in(newArray(4, 6, 8), compute.BF16, dense), u)
	try("unfold, no source", dst, compute.Tensor{}, u)
	s.stillWorks()
}

// examPixels: the bytes of float64 arithmetic, limits, halves and what is not a number.
func examPixels(s *suite) {
	for _, n := range []int{1, 3, 4, 1027, 4096} {
		s.begin("%d values", n)
		x := s.normal(compute.F32, 1, n)
		for i, v := range []float64{0.5 / 127.5, 1.5 / 127.5, math.NaN(), math.Inf(1), math.Inf(-1), -1, 1} {
			if i < n {
				x.data[n-1-i] = exactly(v, compute.F32)
			}
		}
		truth, wrong := newArray(n), 0
		for i, v := range x.data {
			switch v = v*127.5 + 127.5; {
			case v != v:
				wrong++
			default:
				truth.data[i] = math.RoundToEven(min(max(v, 0), 255))
			}
		}
		dst, bad := s.arena.Tensor(compute.U8, n+64), s.arena.Tensor(compute.I32, 1)
		s.dq.(compute.Pixeler).Pixels(dst.Slice(0, 32, 32+n), bad, s.in(x, compute.F32, dense), 127.5, 127.5)
		got, count := make([]byte, n+64), make([]byte, 4)
		s.dq.Download(got, dst)
		s.dq.Download(count, bad)
		if int(count[0]) != wrong {
			s.fail("%d are not numbers, want %d", count[0], wrong)
		}
		for i, b := range got {
			want := 0.0
			if i >= 32 && i < 32+n {
				want = truth.data[i-32]
			}
			if float64(b) != want {
				s.fail("byte %d is %d, want %v", i-32, b, want)
				break
			}
		}
	}
}

// examConvolve compares with the product of the true patches: sizes that fast kernels take, and others.
func examConvolve(s *suite) {
	for i := range few(make([]int, 48)) {
		height, width, channels := 1+s.rng.IntN(20), 1+s.rng.IntN(20), pick(s, 8, 16, 24, 64, 96, 5, 3)
		u := compute.Unfold{Count: 1 + s.rng.IntN(compute.MaxSources), Size: 1 + s.rng.IntN(3), Stride: 1 + s.rng.IntN(2), Pad: s.rng.IntN(2),
			Up: pick(s, 1, 1, 2, 3), Row: s.rng.IntN(3), Column: s.rng.IntN(3), Rows: 1 + s.rng.IntN(20), Columns: 1 + s.rng.IntN(20)}
		dt, out, act := pick(s, compute.BF16, compute.BF16, compute.F32), pick(s, 1, 3, 16, 64, 96, 100, 136), compute.Activation(s.rng.IntN(4))
		if i%4 == 3 { // what decoders ask for
			dt, channels, out, u.Size, u.Stride = compute.BF16, pick(s, 64, 128), pick(s, 3, 16, 64, 128), 3, 1
		}
		s.begin("images %dx%dx%d of %v to %d, activation %d, %+v", height, width, channels, dt, out, act, u)
		sources := make([]array, u.Count)
		lay := pick(s, dense, padded, odd)
		for k := range sources {
			if k == u.Count-1 || s.rng.IntN(3) > 0 {
				sources[k] = s.normal(compute.BF16, 1, height, width, channels) // devices may round operands, which shows where few outputs are not zero
				u.Sources[k] = s.in(sources[k], dt, lay)
			}
		}
		depth := u.Count * u.Size * u.Size * channels
		w, bias := s.normal(compute.BF16, 1/math.Sqrt(float64(depth)), out, depth), array{}
		if i%3 > 0 {
			bias = s.normal(compute.F32, 1, out)
		}
		dst := s.out(pick(s, compute.BF16, compute.F32), pick(s, dense, padded, odd), u.Rows*u.Columns, out)
		s.dq.(compute.Convolver).Convolve(dst.view, u, s.matrix(w, compute.BF16), s.in(bias, compute.F32, dense), act)
		s.near(dst, linear(unfold(sources, height, width, channels, u), w, bias, act), s.tol.Linear)
	}
}

func examSquash(s *suite) {
	for _, dt := range []compute.DType{compute.F32, compute.BF16} {
		for _, lay := range []layout{dense, padded, odd} {
			s.begin("squash %v, layout %d", dt, lay)
			x := s.normal(dt, 3, 37, 16)
			x.data[0], x.data[1], x.data[2] = math.Inf(1), math.Inf(-1), 0
			truth := each(x, array{}, func(x, _ float64) float64 { return 3 * math.Tanh(x/3) })
			dst := s.out(dt, pick(s, dense, padded, odd), 37, 16)
			s.dq.(compute.Squasher).Squash(dst.view, s.in(x, dt, lay), 3)
			s.near(dst, truth, s.tol.F32)
			same := s.inout(x, dt, lay)
			s.dq.(compute.Squasher).Squash(same.view, same.view, 3)
			s.near(same, truth, s.tol.F32)
		}
	}
}
