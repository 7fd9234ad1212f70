package compute

// Vectors is arithmetic on short vectors in host memory: what work of the host on a Mapper's tensors is made of. Any number of goroutines may
// use it at a time.
type Vectors interface {
	// Widen writes bfloat16 as float32, Narrow rounds to nearest even; both have the length of x.
	Widen(dst []float32, x []uint16)
	Narrow(dst []uint16, x []float32)
	// Mix writes a*x + b*y, Scale a*x; dst may be x or y.
	Mix(dst, x, y []float32, a, b float32)
	Scale(dst, x []float32, a float32)
	// Turn rotates pairs of adjacent elements in place, by (cos, sin) pairs.
	Turn(x, turns []float32)
	// Squares returns the sum of squares.
	Squares(x []float32) float32
}

// Vectorer is a Queue whose device has kernels for Vectors.
type Vectorer interface{ Vectors() Vectors }

// VectorsOf returns the queue's, or plain Go's.
func VectorsOf(dq Queue) Vectors {
	if v, ok := dq.(Vectorer); ok {
		return v.Vectors()
	}
	return plain{}
}

// plain is Vectors in Go.
type plain struct{}

func (plain) Widen(dst []float32, x []uint16) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = F32FromBF16(v)
	}
}

func (plain) Narrow(dst []uint16, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = BF16FromF32(v)
	}
}

func (plain) Mix(dst, x, y []float32, a, b float32) {
	dst, y = dst[:len(x)], y[:len(x)]
	for i, v := range x {
		dst[i] = a*v + b*y[i]
	}
}

func (plain) Scale(dst, x []float32, a float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = a * v
	}
}

func (plain) Turn(x, turns []float32) {
	x = x[:len(turns)]
	for i := 0; i+1 < len(turns); i += 2 {
		a, b, cos, sin := x[i], x[i+1], turns[i], turns[i+1]
		x[i], x[i+1] = a*cos-b*sin, a*sin+b*cos
	}
}

func (plain) Squares(x []float32) float32 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return float32(sum)
}
