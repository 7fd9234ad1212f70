package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"longtake/compute"
)

// Placer takes a model's tensors from an audited Source to a device. Run the same loading code twice: with a compute.Meter
// and a nil Queue it only counts and collects faults; then, when Audit.Err is nil, with an Arena and a Queue it loads.
type Placer struct {
	Audit *Audit
	Arena compute.Arena
	Queue compute.Queue
	// Bias is the type of biases, compute.Types.Bias of the device; the zero value is F32.
	Bias compute.DType
	// Coarse lets the device store matrices in fewer bits, see compute.Host.
	Coarse bool

	prefix string
}

// At returns a placer whose names start with prefix.
func (p Placer) At(prefix string) Placer {
	p.prefix += prefix
	return p
}

// Matrix loads a weight [out, in] for compute.Queue.Linear; several names are stacked along out, each of equal height.
func (p Placer) Matrix(out, in int, names ...string) compute.Matrix {
	h := p.stack(names, out/len(names), in)
	h.Coarse = p.Coarse
	return p.Arena.Matrix(h)
}

// Conv loads the weight [out, channels, 1, rows, columns] of a convolution whose stride is its size as a matrix for patches
// in the order (row, column, channel).
func (p Placer) Conv(out int, patch [3]int, name string) compute.Matrix {
	channels, rows, columns := patch[0], patch[1], patch[2]
	h := p.stack([]string{name}, out, channels, 1, rows, columns)
	return p.Arena.Matrix(p.turn(h, 1, channels, rows*columns))
}

// Conv2 loads the weight [out, parts*channels, size, size] of a convolution of an image whose channels come in several parts
// as a matrix for patches in the order (part, row, column, channel), see compute.Unfold.
func (p Placer) Conv2(out, parts, channels, size int, name string) compute.Matrix {
	h := p.stack([]string{name}, out, parts*channels, size, size)
	return p.Arena.Matrix(p.turn(h, parts, channels, size*size))
}

// Conv3 loads the weight [out, channels, frames, size, size] of a convolution over frames as a matrix for patches in the
// order (frame, row, column, channel), see compute.Unfold.
func (p Placer) Conv3(out, channels, frames, size int, name string) compute.Matrix {
	h := p.stack([]string{name}, out, channels, frames, size, size)
	return p.Arena.Matrix(p.turn(h, 1, channels, frames*size*size))
}

// turn makes a matrix [out, parts*taps*channels] of a weight [out, parts, channels, taps].
func (p Placer) turn(h compute.Host, parts, channels, taps int) compute.Host {
	size, out := h.DType.Size(), h.Shape[0]
	to := compute.Host{DType: h.DType, Shape: []int{out, parts * channels * taps}}
	if p.Queue == nil || len(h.Data) == 0 {
		return to
	}
	to.Data = make([]byte, len(h.Data))
	for part := range out * parts {
		from, into := h.Data[part*channels*taps*size:], to.Data[part*channels*taps*size:]
		for i := range channels * taps {
			c, tap := i/taps, i%taps
			copy(into[(tap*channels+c)*size:(tap*channels+c+1)*size], from[i*size:(i+1)*size])
		}
	}
	return to
}

// Mapped returns a parameter where it lies in the file, which must stay open; nothing is taken from the arena. It is empty when
// the audit has found fault with it.
func (p Placer) Mapped(name string, dims ...int) compute.Host {
	h, _ := p.Audit.Want(p.prefix+name, dims...)
	return h
}

// Table loads a parameter as F32 with the given dimensions.
func (p Placer) Table(name string, dims ...int) compute.Tensor { return p.Scaled(1, name, dims...) }

// Scaled loads a parameter as F32, multiplied by a constant.
func (p Placer) Scaled(factor float32, name string, dims ...int) compute.Tensor {
	return p.float(p.stack([]string{name}, dims...), factor)
}

// Stack loads parameters of one shape as F32, one under the other: the first dimension grows.
func (p Placer) Stack(names []string, dims ...int) compute.Tensor {
	return p.float(p.stack(names, dims...), 1)
}

// Biases loads the biases of linear layers that are stacked, each of n elements, in the type Bias.
func (p Placer) Biases(names []string, n int) compute.Tensor {
	h := p.stack(names, n)
	if p.Bias == compute.F32 {
		return p.float(h, 1)
	}
	t := p.Arena.Tensor(p.Bias, h.Shape...)
	if p.Queue == nil || p.Arena.Err() != nil {
		return t
	}
	f, err := Floats(h)
	if err != nil {
		panic(err)
	}
	b := make([]byte, 0, 2*len(f))
	for _, v := range f {
		b = binary.LittleEndian.AppendUint16(b, compute.BF16FromF32(v))
	}
	p.Queue.Upload(t, b)
	return t
}

// stack reads tensors of one shape and joins them along the first dimension. When they differ in type all become F32.
func (p Placer) stack(names []string, dims ...int) compute.Host {
	parts := make([]compute.Host, len(names))
	for i, name := range names {
		h, ok := p.Audit.Want(p.prefix+name, dims...)
		if !ok {
			h = compute.Host{Shape: slices.Clone(dims)} // counted as if it were there; the audit has the fault
		}
		parts[i] = h
	}
	if len(parts) == 1 {
		return parts[0]
	}
	all := compute.Host{DType: parts[0].DType, Shape: slices.Clone(dims)}
	all.Shape[0] *= len(parts)
	if p.Queue == nil {
		return all
	}
	mixed := slices.ContainsFunc(parts, func(h compute.Host) bool { return h.DType != all.DType })
	if mixed {
		all.DType = compute.F32
	}
	all.Data = make([]byte, 0, all.Elems()*all.DType.Size())
	for _, h := range parts {
		if mixed {
			all.Data = append(all.Data, floatBytes(h, 1)...)
		} else {
			all.Data = append(all.Data, h.Data...)
		}
	}
	return all
}

func (p Placer) float(h compute.Host, factor float32) compute.Tensor {
	t := p.Arena.Tensor(compute.F32, h.Shape...)
	if p.Queue != nil && p.Arena.Err() == nil {
		p.Queue.Upload(t, floatBytes(h, factor))
	}
	return t
}

// floatBytes widens a tensor that Audit.Want has checked to be of a floating type.
func floatBytes(h compute.Host, factor float32) []byte {
	f, err := Floats(h)
	if err != nil {
		panic(err)
	}
	b := make([]byte, 0, 4*len(f))
	for _, v := range f {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v*factor))
	}
	return b
}

// Floats widens the elements of a F32, F16 or BF16 tensor into numbers of its own. The error wraps compute.ErrUnsupported
// for other types.
func Floats(h compute.Host) ([]float32, error) {
	out, le := make([]float32, len(h.Data)/h.DType.Size()), binary.LittleEndian
	switch h.DType {
	case compute.F32:
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(h.Data[4*i:]))
		}
	case compute.BF16:
		for i := range out {
			out[i] = compute.F32FromBF16(le.Uint16(h.Data[2*i:]))
		}
	case compute.F16:
		for i := range out {
			out[i] = compute.F32FromF16(le.Uint16(h.Data[2*i:]))
		}
	default:
		return nil, fmt.Errorf("widen %v%v to f32: %w", h.DType, h.Shape, compute.ErrUnsupported)
	}
	return out, nil
}
