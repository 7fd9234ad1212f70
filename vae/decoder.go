package vae

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/video"
)

// ErrOrder is wrapped by the error of a chunk that does not follow the one before.
var ErrOrder = errors.New("chunk out of order")

// side is how many pixels a latent's side stands for, and patchSide how many latents a token's side does.
const (
	side      = 8
	patchSide = 2
)

// Options say what a session is for.
type Options struct {
	// Width and Height are the frames' size in pixels, multiples of 16.
	Width, Height int
	// Patches bounds the memory for patches in bytes; 0 is DefaultPatches. One pixel's patch is held in any case.
	Patches int64
	// Again keeps a second copy of the decoder's state, so that the last chunk may be decoded once more (rollout's Peek).
	Again bool
	// Single makes an encoder for one frame only, which needs no state.
	Single bool
}

func (o Options) latent() grid { return grid{o.Height / side, o.Width / side} }

func (o Options) check() error {
	if n := side * patchSide; o.Width < n || o.Height < n || o.Width%n != 0 || o.Height%n != 0 {
		return fmt.Errorf("frames of %dx%d: want multiples of %d", o.Width, o.Height, n)
	}
	if o.Patches < 0 {
		return fmt.Errorf("%d bytes for patches", o.Patches)
	}
	return nil
}

// tokens moves latent frames between tokens, F32 [tokens, 4*channels] in the order (row, column, channel) of 2x2 patches, and
// images [pixels, channels].
type tokens struct {
	grid     grid // of latents
	channels int
	index    compute.Tensor // I32 [pixels]
	inverse  bool           // to tokens
	ready    bool
}

func newTokens(a compute.Arena, g grid, channels int, inverse bool) tokens {
	return tokens{grid: g, channels: channels, index: a.Tensor(compute.I32, g.pixels()), inverse: inverse}
}

// prepare uploads the order once.
func (t *tokens) prepare(dq compute.Queue) {
	if t.ready {
		return
	}
	t.ready = true
	b := make([]byte, t.index.Bytes())
	for y := range t.grid.rows {
		for x := range t.grid.columns {
			pixel := y*t.grid.columns + x
			token := y/patchSide*(t.grid.columns/patchSide) + x/patchSide
			at := token*patchSide*patchSide + y%patchSide*patchSide + x%patchSide
			if t.inverse {
				pixel, at = at, pixel
			}
			binary.LittleEndian.PutUint32(b[4*pixel:], uint32(at))
		}
	}
	dq.Upload(t.index, b)
}

// count is the tokens of a frame, width the values of one.
func (t *tokens) count() int { return t.grid.pixels() / (patchSide * patchSide) }
func (t *tokens) width() int { return patchSide * patchSide * t.channels }

// affine is dst = x*scale + shift for rows of latents, each F32 [1, channels].
func (w *work) affine(dst, x, scale, shift compute.Tensor) {
	w.most = max(w.most, x.Shape[0])
	if w.arena == nil {
		w.dq.Gather(dst, shift, w.nothing.Slice(0, 0, x.Shape[0]), false)
	}
	w.dq.AddGated(dst, dst, x, scale)
}

// Decoder is one session's way from latents to frames, for a Wan VAE or a TAEHV. Latent frame 0 gives one frame, every later
// one four. It belongs to one goroutine at a time; its memory is the arena's that it was made with.
type Decoder struct {
	chain
	options Options
	tokens  tokens
	// enter turns a latent frame, F32 [pixels, channels], into what the first stage takes.
	enter  func(z compute.Tensor)
	trim   int // frames to drop at the start of a video
	levels levels

	next, last int // latent frame that follows; first one of the last chunk
	raw        int // frames out of the network so far
	rawBefore  int // at the start of the last chunk
	feeding    bool
	frames     []video.Frame
	err        error
	host       []byte
	pixels     compute.Tensor // U8 [a frame's values], where the queue makes bytes
	bad        compute.Tensor // I32 [1]: values that were not numbers, of all frames
	seen       uint32         // of bad
}

// rehearse fills in what both kinds share and rehearses. Enter and stages must be set.
func (d *Decoder) rehearse(a compute.Arena, o Options, channels int) error {
	d.options, d.tokens, d.feeding = o, newTokens(a, o.latent(), channels, false), true
	d.out = d.frame
	d.pixels, d.bad = a.Tensor(compute.U8, 3*o.Width*o.Height), a.Tensor(compute.I32, 1)
	for range 5 { // a second latent frame is the first to give four; memories are full after two more
		d.one(compute.NewTensor(nil, 0, compute.F32, d.tokens.count(), d.tokens.width()))
	}
	if o.Again {
		d.eachMemory((*memory).save)
	}
	if err := d.rehearsed(); err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	d.Reset()
	return nil
}

// Again reports whether the last chunk may be decoded or fed once more, as another (Options.Again).
func (d *Decoder) Again() bool { return d.options.Again }

// Reset makes the next latent frame the first of a video. It takes and gives back no memory.
func (d *Decoder) Reset() {
	d.reset()
	d.next, d.last, d.raw = 0, -1, 0
}

// Next returns the number of the latent frame that Decode takes next.
func (d *Decoder) Next() int { return d.next }

// Decode turns the tokens F32 [latent frames*tokens, 64] of latent frames first, first+1, ... into frames, numbered as in the
// video: latent frame 0 is frame 0, latent frame i is frames 4i-3 to 4i. Latent frame 0 begins a new video; otherwise first
// follows the chunk before, or is the same again in a session made for that. The error wraps ErrOrder otherwise. The frames
// own their pixels.
func (d *Decoder) Decode(dq compute.Queue, latent compute.Tensor, first int) ([]video.Frame, error) {
	d.feeding, d.frames = false, nil
	err := d.run(dq, latent, first)
	frames := d.frames
	d.frames = nil
	if err != nil {
		return nil, err
	}
	return frames, nil
}

// Feed is Decode for latents whose frames nobody wants, only that the next ones follow: start frames, a forced history.
func (d *Decoder) Feed(dq compute.Queue, latent compute.Tensor, first int) error {
	d.feeding = true
	return d.run(dq, latent, first)
}

func (d *Decoder) run(dq compute.Queue, latent compute.Tensor, first int) error {
	n := d.tokens.count()
	if latent.Rank != 2 || latent.DType != compute.F32 || latent.Shape[0]%n != 0 || latent.Shape[1] != d.tokens.width() || !latent.Contiguous() {
		panic(fmt.Sprintf("vae: decode of %v, want tokens f32[n*%d %d]", latent, n, d.tokens.width()))
	}
	d.dq, d.err = dq, nil
	switch {
	case first == 0:
		d.Reset()
	case first == d.next:
	case first == d.last && d.options.Again:
		d.eachMemory((*memory).restore)
		d.next, d.raw = d.last, d.rawBefore
	default:
		return fmt.Errorf("latent frame %d after %d: %w", first, d.next-1, ErrOrder)
	}
	if d.options.Again {
		d.eachMemory((*memory).save)
	}
	d.last, d.rawBefore = d.next, d.raw
	d.tokens.prepare(dq)
	for f := range latent.Shape[0] / n {
		d.one(latent.Slice(0, f*n, (f+1)*n))
		d.next++
	}
	if d.err != nil {
		return d.err
	}
	return dq.Err()
}

// one decodes a latent frame of tokens.
func (d *Decoder) one(latent compute.Tensor) {
	pixels := d.tokens.grid.pixels()
	z := d.take(compute.F32, pixels, d.tokens.channels)
	d.dq.Gather(z, latent.Reshape(pixels, d.tokens.channels), d.tokens.index, false)
	d.enter(z)
}

// frame takes a finished frame F32 [pixels, 3] from the network.
func (d *Decoder) frame(x compute.Tensor, _ grid) {
	index := d.raw - d.trim
	d.raw++
	if index < 0 || d.feeding || d.err != nil {
		return
	}
	f := video.NewFrame(d.options.Width, d.options.Height)
	f.Index = index
	if q, ok := d.dq.(compute.Pixeler); ok {
		d.fetch(q, f.Pix, x, index)
	} else {
		d.convert(f.Pix, x, index)
	}
	if d.err == nil {
		d.frames = append(d.frames, f)
	}
}

// fetch lets the queue make the bytes.
func (d *Decoder) fetch(q compute.Pixeler, pix []byte, x compute.Tensor, index int) {
	q.Pixels(d.pixels, d.bad, x.Reshape(x.Elems()), d.levels.scale, d.levels.shift)
	d.dq.Download(pix, d.pixels)
	var bad [4]byte
	d.dq.Download(bad[:], d.bad)
	if d.err = d.dq.Err(); d.err != nil {
		return
	}
	if n := binary.LittleEndian.Uint32(bad[:]); n != d.seen {
		d.err = fmt.Errorf("frame %d: the decoder's output is not a number, %d values of it", index, n-d.seen)
		d.seen = n
	}
}

// convert brings the values to the host and makes the bytes there.
func (d *Decoder) convert(pix []byte, x compute.Tensor, index int) {
	if d.host == nil {
		d.host = make([]byte, x.Bytes())
	}
	d.dq.Download(d.host, x)
	if d.err = d.dq.Err(); d.err != nil {
		return
	}
	if bad := d.levels.bytes(pix, d.host); bad >= 0 {
		d.err = fmt.Errorf("frame %d: the decoder's output is not a number at pixel %d", index, bad/3)
	}
}

// levels brings a network's range to 0..255: v*scale + shift.
type levels struct{ scale, shift float64 }

// bytes rounds values, F32 bytes, to the nearest, ties to even, and limits them. It returns the place of the first that is not
// a number, -1 if there is none. A frame of 832x480 has 1.2 million, so the loop is plain.
func (l levels) bytes(dst []byte, values []byte) (bad int) {
	const round = 3 << 51 // added to a small float64, it leaves the rounded number in the lowest bits
	values = values[:4*len(dst)]
	for i := range dst {
		x := float64(math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:])))*l.scale + l.shift
		if !(x >= 0) {
			if x != x {
				return i
			}
			x = 0
		} else if x > 255 {
			x = 255
		}
		dst[i] = uint8(math.Float64bits(x + round))
	}
	return -1
}

// NewDecoder makes a session's decoder; with a compute.Meter it only counts. At 832x480 and F32 it takes 4.8 GB: two input
// frames of every convolution over time (3.8), images in work, and patches (Options).
//
// A latent frame costs 13.55 TFLOP there, of which attention 0.06; the first, which gives one frame, 4.35.
func (m *Wan) NewDecoder(a compute.Arena, t compute.Types, o Options) (*Decoder, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	d := &Decoder{levels: levels{127.5, 127.5}}
	d.work, d.stages = newWork(a, t, o.Patches), stages(m.decoder, t.Activation, 2)
	d.enter = func(z compute.Tensor) {
		y := d.take(compute.F32, z.Shape[0], z.Shape[1])
		d.affine(y, z, m.scale, m.shift)
		d.put(z)
		d.stages[0].push(&d.chain, 0, y, d.tokens.grid)
	}
	return d, d.rehearse(a, o, len(m.config.Mean))
}
