package ann_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"longtake/accel/ann"
	"longtake/compute"
	"longtake/internal/devicetest"
)

// TestGPUsHashLikeTheHost compares codes and what is found by them with the indexes of this package.
func TestGPUsHashLikeTheHost(t *testing.T) {
	dev := devicetest.Open(t, "cuda")
	defer dev.Close()
	hashesLikeTheHost(t, dev)
}

// room is a queue with an arena.
type room struct {
	testing.TB
	compute.Queue
	compute.Arena
}

func newRoom(t *testing.T, dev compute.Device) room {
	dq, err := dev.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	a, err := dev.NewArena(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dq.Wait(); err != nil {
			t.Error(err)
		}
		a.Free()
		dq.Close()
	})
	return room{t, dq, a}
}

func (r room) floats(dt compute.DType, v []float32, dims ...int) compute.Tensor {
	t := r.Tensor(dt, dims...)
	b := make([]byte, t.Bytes())
	ann.StoreRow(b, dt, 0, v)
	r.Upload(t, b)
	return t
}

func (r room) words(t compute.Tensor) []uint64 {
	b := make([]byte, t.Bytes())
	r.Download(b, t)
	size, out := t.DType.Size(), make([]uint64, t.Elems())
	for i := range out {
		for j := range size {
			out[i] |= uint64(b[i*size+j]) << (8 * j)
		}
	}
	return out
}

func (r room) numbers(t compute.Tensor) []float32 {
	out := make([]float32, t.Elems())
	for i, w := range r.words(t) {
		out[i] = math.Float32frombits(uint32(w))
	}
	return out
}

func hashesLikeTheHost(t *testing.T, dev compute.Device) {
	for i, c := range []struct{ heads, rows, width, bits int }{{3, 70, 32, 64}, {1, 129, 128, 10}, {2, 65, 48, 200}, {1, 1, 16, 64}} {
		t.Run(fmt.Sprintf("%d by %d of %d, %d bits", c.heads, c.rows, c.width, c.bits), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			keys, queries := vectors(rng, c.heads*c.rows, c.width), vectors(rng, c.heads*c.rows, c.width)
			r := newRoom(t, dev)
			x, q := r.floats(compute.F32, keys, c.heads, c.rows, c.width), r.floats(compute.F32, queries, c.heads, c.rows, c.width)
			counts := make([]byte, 4*c.heads)
			for h := range c.heads {
				binary.LittleEndian.PutUint32(counts[4*h:], uint32(c.rows-h*c.rows/4))
			}
			many := r.Tensor(compute.I32, c.heads)
			r.Upload(many, counts)
			r.signs(x, q, many, keys, queries, c.bits)
			for _, m := range []ann.LSH{{Bits: 8, Tables: 4, Probes: 1}, {Bits: 5, Tables: 13, Probes: 2}, {Bits: 10, Tables: 8}, {Bits: 16, Tables: 3, Probes: 16}, {Bits: 1, Tables: 1}} {
				r.tables(x, q, many, keys, queries, m)
			}
			for _, bits := range []int{2, 4, 8} {
				r.levels(x, keys, bits)
			}
		})
	}
}

func vectors(rng *rand.Rand, n, width int) []float32 {
	v := make([]float32, n*width)
	for i := range v {
		v[i] = float32(rng.NormFloat64() * math.Exp2(float64(i/width%5)))
	}
	return v
}

// signs compares Hash with products in float64 and MatchCodes with Nearest.
func (r room) signs(x, q, many compute.Tensor, keys, queries []float32, bits int) {
	heads, rows, width, words := x.Dim(0), x.Dim(1), x.Dim(2), (bits+63)/64
	maker, hasher := ann.LSH{Bits: bits}, r.Queue.(compute.Hasher)
	directions := maker.Planes(width)
	planes := r.floats(compute.F32, directions, bits, width)
	codes, lengths := r.Tensor(compute.I64, heads, rows+3, words), r.Tensor(compute.F32, heads, rows+3)
	asked, askedLengths := r.Tensor(compute.I64, heads, rows, words), r.Tensor(compute.F32, heads, rows)
	hasher.Hash(codes, compute.Tensor{}, lengths, x, planes, many, compute.Tables{})
	hasher.Hash(asked, compute.Tensor{}, askedLengths, q, planes, compute.Tensor{}, compute.Tables{})
	best, score := r.Tensor(compute.I32, heads, rows), r.Tensor(compute.F32, heads, rows)
	hasher.MatchCodes(best, score, asked, codes, lengths, many, bits)
	code, length, counts, found, scores := r.words(codes), r.numbers(lengths), r.words(many), r.words(best), r.numbers(score)
	for h := range heads {
		index := maker.New(width, rows)
		for i := range int(counts[h]) {
			key := keys[(h*rows+i)*width:][:width]
			index.Put(i, key)
			for b := range bits {
				sum, size := 0.0, 0.0
				for j, v := range key {
					p := float64(v) * float64(directions[b*width+j])
					sum, size = sum+p, size+math.Abs(p)
				}
				if got := code[(h*(rows+3)+i)*words+b/64]>>(b%64)&1 == 1; got != (sum >= 0) && math.Abs(sum) > 1e-5*size {
					r.Fatalf("head %d, row %d, bit %d is %v, the product %v", h, i, b, got, sum)
				}
			}
			if want := math.Sqrt(float64(ann.Dot(key, key))); math.Abs(float64(length[h*(rows+3)+i])-want) > 1e-5*want {
				r.Fatalf("head %d, row %d has length %v, want %v", h, i, length[h*(rows+3)+i], want)
			}
		}
		wrong := 0
		for i := range rows {
			ask := queries[(h*rows+i)*width:][:width]
			want, got := index.Nearest(ask, int(counts[h])), int(int32(found[h*rows+i]))
			both := make([]float32, counts[h])
			index.Score(both, ask, 0)
			size := float32(math.Sqrt(float64(ann.Dot(ask, ask))))
			if got != want && math.Abs(float64(both[got]-both[want])) > 1e-5*math.Abs(float64(both[want])) || math.Abs(float64(scores[h*rows+i]*size-both[want])) > 1e-4*math.Abs(float64(both[want])) {
				wrong++
			}
		}
		if wrong > rows/50 { // a bit that flips may change the best
			r.Errorf("head %d: %d of %d nearest keys differ", h, wrong, rows)
		}
	}
}

// tables compares MatchTables with Nearest of an index with tables.
func (r room) tables(x, q, many compute.Tensor, keys, queries []float32, maker ann.LSH) {
	heads, rows, width, words := x.Dim(0), x.Dim(1), x.Dim(2), (maker.Signs()+63)/64
	hasher, cut := r.Queue.(compute.Hasher), maker.Cut()
	planes := r.floats(compute.F32, maker.Planes(width), maker.Signs(), width)
	codes, lengths := r.Tensor(compute.I64, heads, rows+3, words), r.Tensor(compute.F32, heads, rows+3)
	asked, weak, askedLengths := r.Tensor(compute.I64, heads, rows, words), r.Tensor(compute.I64, heads, rows, words), r.Tensor(compute.F32, heads, rows)
	hasher.Hash(codes, compute.Tensor{}, lengths, x, planes, many, compute.Tables{})
	hasher.Hash(asked, weak, askedLengths, q, planes, compute.Tensor{}, cut)
	best, score := r.Tensor(compute.I32, heads, rows), r.Tensor(compute.F32, heads, rows)
	hasher.MatchTables(best, score, asked, weak, codes, lengths, many, r.Tensor(compute.I32, heads, maker.Tables, rows+3), r.Tensor(compute.I32, heads, maker.Tables, 1<<maker.Bits), cut)
	counts, found, scores := r.words(many), r.words(best), r.numbers(score)
	wrong, none := 0, 0
	for h := range heads {
		index := maker.New(width, rows)
		for i := range int(counts[h]) {
			index.Put(i, keys[(h*rows+i)*width:][:width])
		}
		all := make([]float32, counts[h])
		for i := range rows {
			ask := queries[(h*rows+i)*width:][:width]
			want, got := index.Nearest(ask, int(counts[h])), int(int32(found[h*rows+i]))
			index.Score(all, ask, 0)
			size := float32(math.Sqrt(float64(ann.Dot(ask, ask))))
			switch {
			case got < 0 || want < 0:
				none++
				if got != want || !math.IsInf(float64(scores[h*rows+i]), -1) {
					wrong++
				}
			case !(math.Abs(float64(all[got]-all[want])) <= 1e-5*math.Abs(float64(all[want]))) || math.Abs(float64(scores[h*rows+i]*size-all[want])) > 1e-4*math.Abs(float64(all[want])):
				wrong++
			}
		}
	}
	if wrong > heads*rows/50 { // a bit that flips may change a bucket
		r.Errorf("%v: %d of %d nearest keys differ", maker, wrong, heads*rows)
	}
	r.Logf("%v: %d of %d queries share no bucket", maker, none, heads*rows)
}

// levels compares Quantise with what an index knows of its keys.
func (r room) levels(x compute.Tensor, keys []float32, bits int) {
	heads, rows, width := x.Dim(0), x.Dim(1), x.Dim(2)
	maker := ann.Scalar(bits)
	bytes := (width*bits + 7) / 8
	packed, scales, known := r.Tensor(compute.U8, heads, rows, bytes), r.Tensor(compute.F32, heads, rows), r.Tensor(compute.F32, heads, rows, width)
	r.Queue.(compute.Hasher).Quantise(packed, scales, known, x, compute.Tensor{}, bits, maker.Step())
	code, scale, means := r.words(packed), r.numbers(scales), r.numbers(known)
	index, row, off := maker.New(width, heads*rows), make([]float32, width), 0
	for i := range heads * rows {
		index.Put(i, keys[i*width:][:width])
		index.(ann.Rows).Row(row, i)
		for j, want := range row {
			level := code[i*bytes+j*bits/8] >> (j * bits % 8) & (1<<bits - 1)
			got := means[i*width+j]
			if math.Abs(float64(scale[i])*(float64(level)+0.5-float64(uint64(1)<<(bits-1)))-float64(got)) > 1e-5*(math.Abs(float64(got))+float64(scale[i])) {
				r.Fatalf("%d bits, row %d: level %d at scale %v is %v", bits, i, level, scale[i], got)
			}
			if d := math.Abs(float64(got - want)); d > 1e-4*float64(scale[i]) {
				if off++; d > 1.001*float64(scale[i]) {
					r.Fatalf("%d bits, row %d, number %d: %v, want %v", bits, i, j, got, want)
				}
			}
		}
	}
	if off > heads*rows*width/1000 { // numbers at the border of two levels
		r.Errorf("%d bits: %d of %d numbers are in another level", bits, off, heads*rows*width)
	}
}
