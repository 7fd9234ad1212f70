package model

import (
	"fmt"

	"longtake/sampler"
)

// Options say how a model on Wan-2.1 is opened; zero values are the family's own.
type Options struct {
	// Width and Height are the frames' size in pixels, multiples of 16.
	Width, Height int
	// VAE is "wan", "tiny" or "" for what is there, the full one first.
	VAE string
	// Root is the dictionary of the network's file that is loaded (generator, generator_ema); "" takes the first there is.
	Root string
	// Adapters are merged into the network, in order; NoAdapter leaves the family's own out.
	Adapters  []Adapter
	NoAdapter bool
	// OffloadText keeps the text encoder off the device but while a prompt is encoded. Prompts are encoded before the network
	// is loaded, so that both need not fit at once.
	OffloadText bool
	Prompts     []string
	// Encode loads the VAE's encoder, for start frames.
	Encode bool
	// ChunkFrames, Steps, Raw and Shift replace the family's. Raw applies to Steps.
	ChunkFrames int
	Steps       []float64
	Raw         bool
	Shift       float64
	// Unchecked leaves out the look for numbers that are not finite.
	Unchecked bool
	// Progress, if not nil, is told what took how long.
	Progress func(line string)
	// Free is the device's memory that may be used, 0 for what it says is free.
	Free int64
}

// Adapter is a LoRA file and the factor it is merged with; 0 is 1.
type Adapter struct {
	Path  string
	Scale float64
}

// wanWidth and wanHeight are Wan-2.1's 480p.
const (
	wanWidth  = 832
	wanHeight = 480
)

// settle fills in what the family says.
func (o Options) settle(f Family) (Options, error) {
	if o.Width == 0 && o.Height == 0 {
		o.Width, o.Height = wanWidth, wanHeight
	}
	if o.Width < 16 || o.Height < 16 || o.Width%16 != 0 || o.Height%16 != 0 || o.Width > 8192 || o.Height > 8192 {
		return o, fmt.Errorf("size %dx%d: width and height must be multiples of 16 from 16 to 8192", o.Width, o.Height)
	}
	if o.ChunkFrames == 0 {
		o.ChunkFrames = f.ChunkFrames
	}
	if o.ChunkFrames < 1 || o.ChunkFrames > 64 {
		return o, fmt.Errorf("chunks of %d latent frames: use 1 to 64", o.ChunkFrames)
	}
	if len(o.Steps) == 0 {
		o.Steps, o.Raw = f.Steps, f.Raw
	}
	if o.Shift == 0 {
		o.Shift = f.Shift
	}
	switch o.VAE {
	case "", "wan", "tiny":
	default:
		return o, fmt.Errorf("vae %q: wan or tiny", o.VAE)
	}
	_, err := o.solver(0)
	return o, err
}

// solver makes a session's solver. A number of steps other than the family's spreads them evenly, as the published lists are.
func (o Options) solver(steps int) (*sampler.Solver, error) {
	list, raw := o.Steps, o.Raw
	if steps != 0 && steps != len(list) {
		if steps < 0 || steps > 1000 {
			return nil, fmt.Errorf("%d denoising steps: use 1 to 1000", steps)
		}
		list, raw = nil, false
		for i := range steps {
			list = append(list, float64(1000-1000*i/steps))
		}
	}
	if raw {
		return sampler.Raw(list, o.Shift)
	}
	nominal := make([]int, len(list))
	for i, v := range list {
		if nominal[i] = int(v); float64(nominal[i]) != v {
			return nil, fmt.Errorf("denoising step %v: nominal steps are whole numbers", v)
		}
	}
	return sampler.Warped(nominal, o.Shift)
}
