package cuda

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"longtake/compute"
)

func TestCoarseWeightsTakeAByteAndTheirProductsScales(t *testing.T) {
	f := newFakeGPU()
	d, err := newDevice(f, &fakeCompiler{archs: []int{80, 90}}, Options{CacheDir: t.TempDir(), Weights: compute.BF16, FP8: FP8Best})
	if err != nil {
		t.Fatal(err)
	}
	if d.fp8 != FP8Rows || !strings.Contains(d.Name(), "e4m3 by rows") {
		t.Errorf("chose %v: %s", d.fp8, d.Name())
	}
	a, _ := d.NewArena(0)
	meter := &compute.Meter{Device: d}
	host := func(coarse bool, out, in int) compute.Host {
		return compute.Host{DType: compute.BF16, Shape: []int{out, in}, Data: make([]byte, 2*out*in), Coarse: coarse}
	}
	for _, w := range []compute.Host{host(true, 32, 48), host(false, 32, 48), host(true, 30, 48), host(true, 32, 40)} {
		before := a.Bytes()
		m := a.Matrix(w).(*matrix)
		meter.Matrix(w)
		want := compute.BF16
		if w.Coarse && w.Shape[0]%16 == 0 && w.Shape[1]%16 == 0 {
			want = compute.F8E4M3
		}
		if m.DType != want || m.scale.IsZero() != (want == compute.BF16) || a.Bytes()-before != align(d.MatrixBytes(w)) || a.Bytes() != meter.Bytes() {
			t.Errorf("%v, coarse %v: stored as %v, %d bytes", w.Shape, w.Coarse, m.Tensor, a.Bytes()-before)
		}
	}
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	m := a.Matrix(host(true, 32, 48))
	f.launches = nil
	q.Linear(a.Tensor(compute.BF16, 5, 32), a.Tensor(compute.BF16, 5, 48), m, a.Tensor(compute.F32, 32), compute.GELU)
	last := f.products[len(f.products)-1]
	if !slices.Equal(f.launches, []string{"quant_b", "map_bf", "cublasLt"}) || last.fp8 != FP8Rows || !last.biasHalf || q.Err() != nil {
		t.Errorf("launched %v, product %+v, %v", f.launches, last, q.Err())
	}
	x, y := a.Tensor(compute.BF16, 6, 48), a.Tensor(compute.BF16, 6, 48)
	dst, bias := a.Tensor(compute.BF16, 6, 32), a.Tensor(compute.BF16, 32)
	f.launches = nil
	q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{})
	q.Linear(dst, y, m, bias, compute.None) // rounded already
	q.Linear(dst, y, m, bias, compute.None) // a product may have written it
	q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{})
	q.Linear(dst, x, m, bias, compute.None)
	q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{})
	q.Upload(y, make([]byte, y.Bytes()))
	q.Linear(dst, y, m, bias, compute.None)
	if want := []string{"addnorm_coarse", "cublasLt", "quant_b", "cublasLt", "addnorm_coarse", "quant_b", "cublasLt", "addnorm_coarse", "quant_b", "cublasLt"}; !slices.Equal(f.launches, want) || q.Err() != nil {
		t.Errorf("sums and products launched %v, want %v; %v", f.launches, want, q.Err())
	}
	second := a.Matrix(host(true, 48, 32))
	f.launches = nil
	q.FeedForward(a.Tensor(compute.BF16, 5, 48), a.Tensor(compute.BF16, 5, 32), a.Tensor(compute.BF16, 5, 48), m, second, a.Tensor(compute.BF16, 32), compute.Tensor{}, compute.GELU)
	if !slices.Equal(f.launches, []string{"quant_b", "cublasLt", "quant_b", "cublasLt"}) || q.quantArgs.bias == 0 || q.quantArgs.act != uint32(compute.GELU) || q.Err() != nil {
		t.Errorf("two products launched %v, %+v, %v", f.launches, q.quantArgs, q.Err())
	}
	f.refuse = func(product) bool { return true }
	if _, err := newDevice(f, &fakeCompiler{archs: []int{80, 90}}, Options{CacheDir: t.TempDir(), FP8: FP8Best}); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("no products: %v", err)
	}
	f.refuse = func(p product) bool { return p.fp8 == FP8Rows }
	tensors, err := newDevice(f, &fakeCompiler{archs: []int{80, 90}}, Options{CacheDir: t.TempDir(), FP8: FP8Best})
	if err != nil || tensors.fp8 != FP8Tensors {
		t.Errorf("without scales for rows: %v", err)
	}
	if _, err := newDevice(f, &fakeCompiler{}, Options{Float32: true, FP8: FP8Best}); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("float32 and fp8: %v", err)
	}
}

func TestASumForACoarseProductAloneIsNotWrittenTwiceAndNothingElseMayTakeIt(t *testing.T) {
	f := newFakeGPU()
	d, err := newDevice(f, &fakeCompiler{archs: []int{80, 90}}, Options{CacheDir: t.TempDir(), Weights: compute.BF16, FP8: FP8Best})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := d.NewArena(0)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	m := a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{32, 48}, Data: make([]byte, 2*32*48), Coarse: true})
	x, y := a.Tensor(compute.BF16, 6, 48), a.Tensor(compute.BF16, 6, 48)
	dst, bias := a.Tensor(compute.BF16, 6, 32), a.Tensor(compute.BF16, 32)
	q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{Coarse: compute.IsCoarse(m)})
	if q.normArgs.dst != 0 || !compute.IsCoarse(m) {
		t.Errorf("dst at %d", q.normArgs.dst)
	}
	q.Linear(dst, y, m, bias, compute.None)
	q.Norm(y, x, compute.Norm{}) // what was written since is there
	q.Linear(dst, y, m, bias, compute.None)
	if q.Err() != nil {
		t.Error(q.Err())
	}
	q.AddNorm(y, x, x, y, compute.Tensor{}, compute.Norm{Coarse: true})
	q.Copy(dst, x.Slice(1, 0, 32))
	if q.Linear(dst, y, m, bias, compute.None); q.Err() == nil {
		t.Error("a product read what was written for another alone")
	}
}
