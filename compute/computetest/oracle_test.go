package computetest

import (
	"math"
	"testing"

	"longtake/compute"
	"longtake/internal/golden"
)

// The truth is tested on numbers worked out by hand.

func of(shape []int, data ...float64) array { return array{shape, data} }

func agree(t *testing.T, what string, got array, want ...float64) {
	t.Helper()
	golden.Near(t, what, got.data, want, 1e-6)
}

func TestLinearByHand(t *testing.T) {
	x, w := of([]int{2, 2}, 1, 2, -3, 4), of([]int{3, 2}, 1, 0, 0, 1, 2, -1)
	agree(t, "no bias", linear(x, w, array{}, compute.None), 1, 2, 0, -3, 4, -10)
	agree(t, "bias and relu", linear(x, w, of([]int{3}, 1, 1, 1), compute.ReLU), 2, 3, 1, 0, 5, 0)
}

func TestActivationsByHand(t *testing.T) {
	for _, c := range []struct {
		act     compute.Activation
		x, want float64
	}{{compute.None, -3, -3}, {compute.ReLU, -3, 0}, {compute.SiLU, 1, 0.7310585786}, {compute.SiLU, -2, -0.2384058440},
		{compute.GELU, 1, 0.8411919906}, {compute.GELU, -0.5, -0.1542859902}} {
		if got := activate(c.x, c.act); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("activation %d of %v = %.10f, want %v", c.act, c.x, got, c.want)
		}
	}
}

func TestNormByHand(t *testing.T) {
	x := of([]int{2, 4}, 1, 2, 3, 4, 2, 4, 6, 8)
	a, b := 3/math.Sqrt(5), 1/math.Sqrt(5) // variance 5/4 and 5
	agree(t, "layer norm", norm(x, normal{}), -a, -b, b, a, -a, -b, b, a)
	r := math.Sqrt(7.5)
	agree(t, "rms", norm(x, normal{rms: true}), 1/r, 2/r, 3/r, 4/r, 1/r, 2/r, 3/r, 4/r)
	agree(t, "eps", norm(of([]int{1, 2}, 3, -3), normal{eps: 7}), 0.75, -0.75)
	n := normal{weight: of([]int{4}, 2, 2, 2, 2), bias: of([]int{4}, 1, 1, 1, 1), scale: of([]int{2, 4}, 0, 0, 0, 0, 1, 1, 1, 1), shift: of([]int{1, 4}, 0, 0, 0, 5)}
	agree(t, "all parameters", norm(x, n), 1-2*a, 1-2*b, 1+2*b, 6+2*a, 2-4*a, 2-4*b, 2+4*b, 7+4*a)
}

func TestRopeByHand(t *testing.T) {
	quarter := of([]int{4, 1, 2}, 1, 0, 0, 1, -1, 0, 0, -1) // a quarter turn a position
	x, pos := of([]int{1, 2, 4}, 1, 2, 3, 4, 1, 2, 3, 4), of([]int{2, 3}, 5, 9, 1, -7, 9, 2)
	r := rotation{tables: [3]array{quarter, {}, quarter}}
	agree(t, "ring and clamp", rope(x, pos, r), -2, 1, -4, 3, 1, 2, -3, -4)
	r.inverse = true
	agree(t, "inverse", rope(x, pos, r), 2, -1, 4, -3, 1, 2, -3, -4)
}

func TestPointwiseByHand(t *testing.T) {
	x, y := of([]int{2, 2}, 1, 2, 3, 4), of([]int{2, 2}, 10, 20, 30, 40)
	agree(t, "no gate", addGated(x, y, array{}), 11, 22, 33, 44)
	agree(t, "one gate", addGated(x, y, of([]int{1, 2}, 1, -1)), 11, -18, 33, -36)
	agree(t, "two gates", addGated(x, y, of([]int{2, 2}, 1, -1, 0, 2)), 11, -18, 3, 84)
	agree(t, "gather", gather(array{}, y, of([]int{3}, 1, 0, 1)), 30, 40, 10, 20, 30, 40)
	agree(t, "gather and add", gather(x, y, of([]int{2}, 1, 1)), 31, 42, 33, 44)
	agree(t, "time embed", timeEmbed(of([]int{2}, 0, math.Pi), 4, 4), 1, 1, 0, 0, -1, 0, 0, 1)
	if v := clamp(math.NaN(), 0, 1); v == v {
		t.Errorf("clamped NaN is %v", v)
	}
}

func TestAttendByHand(t *testing.T) {
	// Scaled logits of the only query: 0, ln 3 and ln 4.
	query, values := of([]int{1, 1, 1}, 2), of([]int{1, 3, 1}, 1, 10, 100)
	keys := of([]int{1, 3, 1}, 0, math.Log(3), math.Log(4))
	check := func(what string, a attention, want, sum float64) {
		t.Helper()
		a.scale = 0.5
		out, lse := attend(query, keys, values, a)
		agree(t, what, out, want)
		agree(t, what+", logsumexp", lse, sum)
	}
	check("dense", attention{}, 431.0/8, math.Log(8))
	check("counts", attention{logCount: of([]int{1, 3}, math.Log(5), math.Inf(-1), 0)}, 405.0/9, math.Log(9))
	check("lengths", attention{lengths: []int{2}}, 31.0/4, math.Log(4))
	check("length 0", attention{lengths: []int{0}}, 0, math.Inf(-1))
	check("tiles", attention{queryTile: 8, keyTile: 2, tiles: [][]int{{1}}}, 100, math.Log(4))
	check("no tiles", attention{queryTile: 8, keyTile: 2, tiles: [][]int{nil}}, 0, math.Inf(-1))
}

func TestHalvesAreExact(t *testing.T) {
	for u := range 1 << 16 {
		exp := u >> 10 & 31
		if exp == 0 || exp == 31 {
			continue
		}
		if got := toHalf(float64(compute.F32FromF16(uint16(u)))); got != uint16(u) {
			t.Fatalf("half %#x comes back as %#x", u, got)
		}
	}
}
