package cuda

import (
	"slices"
	"testing"

	"longtake/compute"
)

// TestFusedOperationsFallBackToTheirParts: what a kernel does not take is composed, by the same rules.
func TestFusedOperationsFallBackToTheirParts(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	f32, b16 := compute.F32, compute.BF16
	x, y, wide := a.Tensor(f32, 2048, 256), a.Tensor(b16, 2048, 256), a.Tensor(f32, 4, 8200)
	gate, odd, narrow := a.Tensor(f32, 2048, 256), a.Tensor(f32, 2049, 256), a.Tensor(f32, 8, 7)
	pos, table := a.Tensor(compute.I32, 2048, 3), a.Tensor(f32, 9, 32, 2)
	rope := compute.Rope{Time: table}
	image, patches := a.Tensor(b16, 6, 8, 16), a.Tensor(b16, 48, 40)
	w := a.Matrix(compute.Host{DType: b16, Shape: []int{40, 144}, Data: make([]byte, 2*40*144)})
	u := compute.Unfold{Sources: [3]compute.Tensor{image}, Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 6, Columns: 8}
	three := u
	three.Up, three.Row = 3, 1
	for _, c := range []struct {
		name     string
		run      func()
		kernels  []string
		together uint32
	}{
		{"two rows at once", func() { q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{}) }, []string{"addnorm_bb"}, 2},
		{"a gate for every row", func() { q.AddNorm(y, x, x, y, gate, compute.Norm{}) }, []string{"addnorm_bb"}, 1},
		{"an odd number of rows", func() { q.AddNorm(odd, odd, odd, odd, compute.Tensor{}, compute.Norm{}) }, []string{"addnorm_ff"}, 1},
		{"odd widths", func() { q.AddNorm(narrow, narrow, narrow, narrow, compute.Tensor{}, compute.Norm{}) }, []string{"addnorm_ff"}, 1},
		{"rows too wide", func() { q.AddNorm(wide, wide, wide, wide, compute.Tensor{}, compute.Norm{}) }, []string{"map_fff", "norm_wide_ff"}, 1},
		{"a sum in bfloat16", func() { q.AddNorm(y, y, x, y, compute.Tensor{}, compute.Norm{}) }, []string{"map_bfb", "norm_bb"}, 1},
		{"norm and rope", func() { q.NormRope(y.Heads(4), y, compute.Norm{RMS: true}, pos, rope) }, []string{"normrope_bb_alike"}, 1},
		{"heads that turn apart", func() { q.NormRope(y.Heads(4), y, compute.Norm{RMS: true}, a.Tensor(compute.I32, 4, 2048, 3), rope) }, []string{"normrope_bb"}, 1},
		{"heads at odd places", func() {
			q.NormRope(a.Tensor(f32, 2048, 260).Slice(1, 1, 257).Heads(4), x, compute.Norm{RMS: true}, pos, rope)
		}, []string{"norm_ff", "rope_ff"}, 1},
		{"a convolution", func() { q.Convolve(patches, u, w, compute.Tensor{}, compute.None) }, []string{"conv"}, 0},
		{"three times the size", func() { q.Convolve(patches, three, w, compute.Tensor{}, compute.None) }, []string{"unfold_16", "cublasLt"}, 0},
	} {
		f.launches = nil
		c.run()
		if !slices.Equal(f.launches, c.kernels) || q.Err() != nil {
			t.Errorf("%s: launched %v, want %v; %v", c.name, f.launches, c.kernels, q.Err())
		}
		if c.together > 0 && q.normArgs.together != c.together {
			t.Errorf("%s: %d rows at once, want %d", c.name, q.normArgs.together, c.together)
		}
	}
	for out, want := range map[int]int{3: 16, 64: 64, 96: 96, 100: 128, 128: 128, 192: 96, 256: 128, 384: 128} {
		if got := convBlock(out); got != want {
			t.Errorf("%d outputs in blocks of %d, want %d", out, got, want)
		}
	}
	for name, run := range map[string]func(){
		"add norm": func() { q.AddNorm(y, x, x, narrow, compute.Tensor{}, compute.Norm{}) },
		"rope":     func() { q.NormRope(y.Heads(4), x.Slice(1, 0, 128), compute.Norm{}, pos, rope) },
		"convolve": func() { q.Convolve(patches.Slice(1, 0, 39), u, w, compute.Tensor{}, compute.None) },
		"pixels":   func() { q.Pixels(a.Tensor(compute.U8, 4), a.Tensor(compute.I32, 1), narrow, 1, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of other shapes did not panic", name)
				}
			}()
			run()
		}()
	}
}

func TestConvolutionsOf3x3TakeSquaresWhereTheyFit(t *testing.T) {
	d, f := fakeDevice(t)
	a, _ := d.NewArena(0)
	q, err := d.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what          string
		channels, out int
		u             compute.Unfold
		grid          [3]uint32
		threads       uint32
	}{
		{"TAEHV's", 64, 64, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 20, Columns: 40}, [3]uint32{1, 6, 1}, 256},
		{"many outputs", 128, 192, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 16, Columns: 16}, [3]uint32{3, 1, 1}, 256},
		{"a last layer", 64, 3, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 17, Columns: 16}, [3]uint32{1, 2, 1}, 256},
		{"blocks of 128", 128, 256, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 16, Columns: 16}, [3]uint32{2, 2, 1}, 128},
		{"96 channels", 96, 64, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 20, Columns: 40}, [3]uint32{1, 7, 1}, 128},
		{"96 outputs", 64, 96, compute.Unfold{Count: 1, Size: 3, Stride: 1, Pad: 1, Up: 1, Rows: 20, Columns: 40}, [3]uint32{1, 7, 1}, 128},
		{"half the size", 64, 64, compute.Unfold{Count: 1, Size: 3, Stride: 2, Pad: 1, Up: 1, Rows: 10, Columns: 20}, [3]uint32{1, 2, 1}, 128},
	} {
		c.u.Sources[0] = a.Tensor(compute.BF16, 40, 40, c.channels)
		w := a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{c.out, 9 * c.channels}, Data: make([]byte, 18*c.out*c.channels)})
		q.(compute.Convolver).Convolve(a.Tensor(compute.BF16, c.u.Rows*c.u.Columns, c.out), c.u, w, compute.Tensor{}, compute.None)
		if q.Err() != nil || f.last.grid != c.grid || f.last.block[0] != c.threads {
			t.Errorf("%s: %v blocks of %d, want %v of %d; %v", c.what, f.last.grid, f.last.block[0], c.grid, c.threads, q.Err())
		}
	}
	if near := convVariantOf(64, 64, &compute.Unfold{Size: 3, Stride: 1, Rows: 1, Columns: 1 << 21}).near; near {
		t.Error("more squares than a grid has rows")
	}
}
