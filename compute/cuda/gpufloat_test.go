package cuda

import (
	"errors"
	"fmt"
	"math"
	"os"
	"testing"

	"longtake/compute"
)

// newFloatBench opens a GPU in float32 mode.
func newFloatBench(t testing.TB) *bench {
	t.Helper()
	d, err := New(Options{Float32: true})
	if errors.Is(err, compute.ErrUnsupported) && os.Getenv("LONGTAKE_REQUIRE_GPU") == "" {
		t.Skipf("no NVIDIA GPU here; on one: LONGTAKE_REQUIRE_GPU=1 go test -v -run '%s', or dev/gpu/run.sh for all", t.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	return newBenchOn(t, d)
}

// TestPartsOfActivationsMakeFloat32Products: three bfloat16 parts sum to a float32, so that their products with bfloat16 weights
// differ from those of the plain kernel by the order of sums.
func TestPartsOfActivationsMakeFloat32Products(t *testing.T) {
	b := newFloatBench(t)
	for _, size := range [][2]int{{1536, 1536}, {256, 1024}, {1024, 256}, {192, 256}, {30, 7}} {
		for _, rows := range []int{1, 64, 77} {
			h := compute.Host{DType: compute.BF16, Shape: []int{size[1], size[0]}}
			plain := b.normal(float32(1/math.Sqrt(float64(size[0]))), compute.BF16, size[1], size[0])
			h.Data = make([]byte, plain.Bytes())
			b.Download(h.Data, plain)
			w := b.Arena.Matrix(h)
			for act := range compute.ReLU + 1 {
				x, bias := b.normal(1, compute.F32, rows, size[0]), b.normal(1, compute.F32, size[1])
				got, want := b.Tensor(compute.F32, rows, size[1]), b.Tensor(compute.F32, rows, size[1])
				b.Linear(got, x, w, bias, act)
				b.plainLinear(want, x, &matrix{Tensor: plain, half: true}, bias, act)
				if d := distance(b.floats(got), b.floats(want)); !(d < 1e-5) {
					t.Errorf("%v by %v rows, activation %d: off by %.2g", size, rows, act, d)
				} else if act == compute.None {
					t.Logf("%v by %v rows: off by %.2g", size, rows, d)
				}
			}
		}
	}
	x := b.Tensor(compute.F32, 1, 8)
	raw := make([]byte, 32)
	put := func(i int, v float32) {
		u := math.Float32bits(v)
		raw[4*i], raw[4*i+1], raw[4*i+2], raw[4*i+3] = byte(u), byte(u>>8), byte(u>>16), byte(u>>24)
	}
	values := []float32{math.MaxFloat32, -math.MaxFloat32, 1.0000001, -3.1415927, 1e-30, 0, float32(math.Inf(1)), float32(math.NaN())}
	for i, v := range values {
		put(i, v)
	}
	b.Upload(x, raw)
	parts := b.floats(b.parts(x))
	for i, v := range values {
		if sum := float32(float64(parts[i]) + float64(parts[8+i]) + float64(parts[16+i])); sum != v && v == v || v != v && sum == sum {
			t.Errorf("%v is cut into %v, %v and %v", v, parts[i], parts[8+i], parts[16+i])
		}
	}
}

// TestFloat32AttentionInPieces: the pieces of the keys join to the attention over all, where lengths leave pieces without a key, too.
func TestFloat32AttentionInPieces(t *testing.T) {
	b := newFloatBench(t)
	const heads, dim = 4, 64
	for _, c := range [][2]int{{64, 1600}, {1, 65}, {7, 1561}, {63, 9360}, {130, 333}} {
		t.Run(fmt.Sprintf("%d queries, %d keys", c[0], c[1]), func(t *testing.T) {
			q, dst := b.normal(1, compute.F32, c[0], heads*dim).Heads(heads), b.Tensor(compute.F32, c[0], heads*dim).Heads(heads)
			k, v := b.normal(1, compute.F32, heads, c[1], dim), b.normal(1, compute.F32, heads, c[1], dim)
			for way := range 4 {
				a := compute.Attention{Scale: 0.2, LogSumExp: b.Tensor(compute.F32, heads, c[0])}
				if way&1 != 0 {
					a.LogCount = b.normal(4, compute.F32, heads, c[1])
				}
				if way&2 != 0 {
					a.Lengths = b.ints(int32(c[1]), 0, 1, 64)
				}
				b.Attend(dst, q, k, v, a)
				if d := distance(b.rows(dst), attendExactly(b, q, k, v, a, nil, 0)); !(d < 1e-5) {
					t.Errorf("log-counts %v, lengths %v: off by %.2g", way&1 != 0, way&2 != 0, d)
				}
			}
		})
	}
}
