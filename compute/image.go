package compute

// Unfolder gathers the patches that a convolution multiplies with its weight, so that a convolution is an Unfold and a
// Linear. It is an ability that a Queue may have beyond its contract; the composed form is one Copy a tap.
type Unfolder interface {
	// Unfold fills dst [u.Rows*u.Columns, u.Count*u.Size*u.Size*channels] (any row stride) with one row for each pixel of
	// a rectangle of the convolution's result, in the order (source, row, column, channel). Elements are copied: dst and
	// the sources have one type, F32 or BF16.
	Unfold(dst Tensor, u Unfold)
}

// Convolver is a Queue that convolves without patches in memory.
type Convolver interface {
	// Convolve is Unfold of u, then Linear of the patches to dst [u.Rows*u.Columns, out]: all of the rectangle at once.
	Convolve(dst Tensor, u Unfold, w Matrix, bias Tensor, act Activation)
}

// MaxSources is the most images that an Unfold stacks.
const MaxSources = 3

// Unfold describes patches. Tap (i, j) of result pixel (y, x) is pixel (y*Stride+i-Pad, x*Stride+j-Pad) of the sources
// enlarged Up times (each pixel standing for Up x Up equal ones), and zero outside of them.
type Unfold struct {
	// Sources are Count images [height, width, channels] of one shape, any strides: frames, or parts of the channels. An
	// absent one is all zeros; at least one is there.
	Sources [MaxSources]Tensor
	Count   int
	// Size is the taps on a side. Stride and Up are 1 or more.
	Size, Stride, Pad, Up int
	// The rectangle of result pixels. It may lie anywhere: where no tap meets a source, patches are zero.
	Row, Column, Rows, Columns int
}

// Pixeler is a Queue that makes bytes of numbers.
type Pixeler interface {
	// Pixels computes dst = x*scale + shift in float64, limited to 0..255 and rounded to nearest even: dst U8 and x F32,
	// contiguous, of as many elements. NaN gives 0; bad, I32 [1], is raised by how many of x are NaN.
	Pixels(dst, bad, x Tensor, scale, shift float64)
}

// Squasher is a Queue that can limit smoothly.
type Squasher interface {
	// Squash computes dst = limit*tanh(x/limit) on elements, F32 or BF16. In place allowed.
	Squash(dst, x Tensor, limit float32)
}
