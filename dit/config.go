package dit

import (
	"fmt"
	"slices"

	"longtake/kvcache"
)

// Config are the numbers of a network.
type Config struct {
	// Dim is the width, split into Heads; FFN the hidden width of the feed-forward; Layers the blocks.
	Dim, Heads, Layers, FFN int
	// In and Out are the values of a token before the patch embedding and after the head.
	In, Out int
	// Given is how many more channels the patch embedding reads behind those of the latents, the same in every pass of a chunk
	// (Wan from an image: 4 of mask and 16 of latents; Work.Given sets them). Conv counts them, In does not.
	Given int
	// Conv, if set, is [channels, rows, columns] of a patch whose embedding is stored as a convolution [dim, channels, 1,
	// rows, columns]. Tokens are (row, column, channel) on both sides, as the head writes them, so the columns of the
	// weight are put in that order when it is loaded.
	Conv [3]int
	// TextDim is the width of the text encoder's output, which two linear layers bring to Dim; 0 when it is Dim already.
	// TextTokens is the length that prompts are padded to with zero rows which all queries attend to (Wan: 512); 0 when
	// padding is masked.
	TextDim, TextTokens int
	// Rows and Columns are the token grid of a latent frame, ChunkFrames the latent frames of a chunk.
	Rows, Columns, ChunkFrames int
	// FreqDim is the width of the time sinusoids, whose periods end at MaxPeriod.
	FreqDim   int
	MaxPeriod float64
	// Pairs are the rotated pairs of a head for time, row and column, Theta their bases.
	Pairs [3]int
	Theta [3]float64
	// Unit is how far apart rows, and columns, are in rotation; 0 means 1 (kvcache.Shape.Unit).
	Unit float64
	// Clamp is the longest temporal distance trained on, 0 for no limit.
	Clamp int
	// Eps is the epsilon of every norm.
	Eps float32
	// Actions and Headings are the sizes of the control tables; 0 for a network without controls.
	Actions, Headings int
	// Waves are the wavelengths, in cells, of the features that tell a controlled network where a frame is made; nil: it is not
	// told. ViewTan is the tangent of half the horizontal angle of view.
	Waves   []float64
	ViewTan float64
}

// Tokens returns the tokens of a latent frame.
func (c Config) Tokens() int { return c.Rows * c.Columns }

// HeadDim returns the width of a head.
func (c Config) HeadDim() int { return c.Dim / c.Heads }

// Check reports numbers that do not fit together.
func (c Config) Check() error {
	switch {
	case min(c.Dim, c.Heads, c.Layers, c.FFN, c.In, c.Out, c.Rows, c.Columns, c.ChunkFrames, c.FreqDim) <= 0:
		return fmt.Errorf("network configuration has a number that is not positive: %+v", c)
	case c.Dim%c.Heads != 0:
		return fmt.Errorf("width %d does not divide into %d heads", c.Dim, c.Heads)
	case c.Given < 0 || c.Given > 0 && c.Conv[0]*c.Conv[1]*c.Conv[2] != c.In+c.Given*c.Conv[1]*c.Conv[2]:
		return fmt.Errorf("%d values of a token and %d given channels do not make patches of %v", c.In, c.Given, c.Conv)
	case 2*(c.Pairs[0]+c.Pairs[1]+c.Pairs[2]) != c.HeadDim():
		return fmt.Errorf("rotary pairs %v do not fill heads of %d", c.Pairs, c.HeadDim())
	case c.Unit < 0:
		return fmt.Errorf("rows and columns %v apart in rotation", c.Unit)
	case len(c.Waves) > 0 && (c.Actions == 0 || c.Headings == 0 || slices.Min(c.Waves) <= 0 || c.ViewTan <= 0):
		return fmt.Errorf("places with wavelengths %v and tangent %v need actions, headings and positive numbers", c.Waves, c.ViewTan)
	}
	return nil
}

// CacheShape returns what a cache for this network stores.
func (c Config) CacheShape() kvcache.Shape {
	return kvcache.Shape{
		Layers: c.Layers, Heads: c.Heads, HeadDim: c.HeadDim(),
		Rows: c.Rows, Columns: c.Columns, ChunkFrames: c.ChunkFrames,
		Pairs: c.Pairs, Theta: c.Theta, Unit: c.Unit, Clamp: c.Clamp, Latent: c.In,
	}
}

// Names are the tensor names of a checkpoint format. Block names are put behind "blocks.N.".
type Names struct {
	Patch, Time1, Time2, TimeProj, Head, HeadModulation string // linears without ".weight" and ".bias"
	Text1, Text2                                        string
	FFN1, FFN2, Modulation, NormSuffix                  string // in a block; NormSuffix ends norm_q and norm_k
}

// WanNames are the official names of Wan-2.1 and of the checkpoints made from it.
var WanNames = Names{
	Patch: "patch_embedding", Time1: "time_embedding.0", Time2: "time_embedding.2", TimeProj: "time_projection.1",
	Head: "head.head", HeadModulation: "head.modulation", Text1: "text_embedding.0", Text2: "text_embedding.2",
	FFN1: "ffn.0", FFN2: "ffn.2", Modulation: "modulation", NormSuffix: ".weight",
}

// TinyNames are the names of the embedded model (train/tw.py).
var TinyNames = Names{
	Patch: "patch", Time1: "time1", Time2: "time2", TimeProj: "time_proj", Head: "head", HeadModulation: "head_mod",
	FFN1: "ffn1", FFN2: "ffn2", Modulation: "modulation",
}
