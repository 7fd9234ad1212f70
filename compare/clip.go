package compare

import (
	"encoding/binary"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/rollout"
)

// Clip is test data for modules whose work depends on the content, where no trained weights are at hand: latents that move like
// video. A short real clip is played forwards and backwards, seen through a window that pans over its mirrored plane and comes
// back, and noise of its own lies on every frame, so that redundancy is neither absent nor total. It repeats every ClipPeriod
// latent frames, but for the noise.
type Clip struct {
	tokens  int // of a latent frame
	frames  int // of a chunk
	period  [][]float32
	noise   float64
	seed    uint64
	arena   compute.Arena
	scratch compute.Tensor
	host    []byte
}

// ClipPeriod is how many latent frames pass until a Clip shows the same again: 15 seconds of Wan's video.
const ClipPeriod = 60

// ClipNoise is the standard deviation of the noise on every value of a frame, in units of the latents (about 1).
const ClipNoise = 0.1

// NewClip makes a clip for a model on Wan's latents out of values [frames, channels, rows, columns].
func NewClip(e *rollout.Engine, values []float32, dims [4]int, seed uint64) (*Clip, error) {
	n, c := e.Network, e.Network.Config.Conv
	if len(values) != dims[0]*dims[1]*dims[2]*dims[3] || len(values) == 0 {
		return nil, fmt.Errorf("clip of %v: %d values", dims, len(values))
	}
	if c[0] == 0 || n.Given > 0 || dims[1] != c[0] {
		return nil, fmt.Errorf("clip of %d channels: model %s has latents of %d", dims[1], e.Name, c[0])
	}
	k := &Clip{tokens: n.Tokens(), frames: n.ChunkFrames, noise: ClipNoise, seed: seed}
	for f := range ClipPeriod {
		k.period = append(k.period, panned(values, dims, n.Rows, n.Columns, f))
	}
	rows := n.ChunkFrames * n.Tokens()
	meter := &compute.Meter{Device: e.Device}
	meter.Tensor(compute.F32, rows, n.In)
	var err error
	if k.arena, err = e.Device.NewArena(meter.Bytes()); err != nil {
		return nil, fmt.Errorf("clip: %w", err)
	}
	k.scratch = k.arena.Tensor(compute.F32, rows, n.In)
	return k, k.arena.Err()
}

// swing goes from 0 to n-1 and back, again and again.
func swing(i, n int) int {
	if n < 2 {
		return 0
	}
	if i %= 2*n - 2; i < n {
		return i
	}
	return 2*n - 2 - i
}

// mirror reads a line of n values that is continued by its mirror images.
func mirror(i, n int) int {
	if i %= 2 * n; i < n {
		return i
	}
	return 2*n - 1 - i
}

// panned is frame f as tokens of 2x2 patches, values in the order (row, column, channel). The window moves by a token a frame to
// the right and every other frame one down, until it turns.
func panned(values []float32, dims [4]int, rows, columns, f int) []float32 {
	channels := dims[1]
	source := swing(f, dims[0]) % dims[0]
	x0, y0 := 2*swing(f, ClipPeriod/2+1), 2*swing(f/2, ClipPeriod/4+1)
	out := make([]float32, 0, rows*columns*4*channels)
	for t := range rows * columns {
		for p := range 4 {
			y, x := mirror(2*(t/columns)+p/2+y0, dims[2]), mirror(2*(t%columns)+p%2+x0, dims[3])
			for c := range channels {
				out = append(out, values[((source*channels+c)*dims[2]+y)*dims[3]+x])
			}
		}
	}
	return out
}

// Write is a rollout.Request.Clean.
func (k *Clip) Write(dq compute.Queue, latent compute.Tensor, chunk int) {
	k.host = k.host[:0]
	for f := range k.frames {
		for _, v := range k.period[(chunk*k.frames+f)%ClipPeriod] {
			k.host = binary.LittleEndian.AppendUint32(k.host, math.Float32bits(v))
		}
	}
	dq.Upload(latent, k.host)
	dq.Noise(k.scratch, compute.NoiseKey{Seed: k.seed ^ 0x636c6970, Chunk: uint32(chunk)})
	dq.Mix(latent, 1, latent, float32(k.noise), k.scratch)
}

// Values is what Write writes, on the host.
func (k *Clip) Values(chunk int) []float32 {
	out := make([]float32, k.scratch.Elems())
	compute.FillNoise(out, compute.NoiseKey{Seed: k.seed ^ 0x636c6970, Chunk: uint32(chunk)}, 0)
	each := len(out) / k.frames
	for i := range out {
		out[i] = k.period[(chunk*k.frames+i/each)%ClipPeriod][i%each] + float32(k.noise)*out[i]
	}
	return out
}

// Close gives the memory back.
func (k *Clip) Close() {
	if k.arena != nil {
		k.arena.Free()
	}
}
