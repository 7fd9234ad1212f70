package synth

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"math"
	"runtime"
	"slices"
	"sync"

	"longtake/compute"
)

// Tensor is one tensor of a checkpoint: numbers evenly spread around Mean with standard deviation Std.
type Tensor struct {
	Name      string
	Shape     []int
	Mean, Std float64
	// Key stands for the name where the numbers are made, so that renamed tensors keep theirs; "" is Name.
	Key string
}

// Renamed returns the tensors under other names, with the same numbers.
func Renamed(tensors []Tensor, name func(string) string) []Tensor {
	out := slices.Clone(tensors)
	for i := range out {
		if out[i].Key == "" {
			out[i].Key = out[i].Name
		}
		out[i].Name = name(out[i].Name)
	}
	return out
}

// elems is the number of elements.
func (t Tensor) elems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// piece is how many elements are made in one go.
const piece = 1 << 20

// fill calls write with the tensor's bytes, F32 or BF16, piece by piece in order; pieces are made side by side. The same name
// and seed give the same numbers, which bfloat16 holds exactly.
func (t Tensor) fill(dt compute.DType, seed uint64, write func([]byte) error) error {
	name := fnv.New64a()
	name.Write([]byte(cmp.Or(t.Key, t.Name)))
	key, n, size := seed*0x9e3779b97f4a7c15^name.Sum64(), t.elems(), dt.Size()
	batch := runtime.GOMAXPROCS(0)
	buffers := make([][]byte, batch)
	for first := 0; first < n; first += batch * piece {
		var all sync.WaitGroup
		for k := range buffers {
			lo := first + k*piece
			hi := min(lo+piece, n)
			if buffers[k] = buffers[k][:0]; lo >= hi {
				continue
			}
			if cap(buffers[k]) < (hi-lo)*size {
				buffers[k] = make([]byte, (hi-lo)*size)
			}
			buffers[k] = buffers[k][:(hi-lo)*size]
			all.Go(func() { t.numbers(buffers[k], dt, key+uint64(lo/piece)*0xda942042e4dd58b5) })
		}
		all.Wait()
		for _, b := range buffers {
			if len(b) == 0 {
				continue
			}
			if err := write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbers fills b with splitmix64's numbers, four of 16 bits from each word.
func (t Tensor) numbers(b []byte, dt compute.DType, state uint64) {
	mean, scale := float32(t.Mean), float32(t.Std*math.Sqrt(3)/32768)
	size := dt.Size()
	for i := 0; i < len(b)/size; {
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		for k := 0; k < 4 && i < len(b)/size; k++ {
			bits := math.Float32bits(mean+scale*float32(int16(z>>(16*k)))) &^ 0xffff
			if dt == compute.BF16 {
				binary.LittleEndian.PutUint16(b[2*i:], uint16(bits>>16))
			} else {
				binary.LittleEndian.PutUint32(b[4*i:], bits)
			}
			i++
		}
	}
}
