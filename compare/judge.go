package compare

import (
	"context"
	_ "embed" // the judge is part of the binary
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"longtake/compute"
	"longtake/video"
	"longtake/world"
)

// judgeWeights are bf16 numbers in the order of train/classify.py: four convolutions and a linear layer, weight then bias.
//
//go:embed judge.bin
var judgeWeights []byte

// judge is a small network that says what a room looks like, trained on the simulator's frames (train/classify.py): texture and
// colour of the walls, floor and sky. Views of one place are judged together: in each group their scores are weighed by how much
// a view says of it.
type judge struct {
	convs [4]conv
	w, b  []float32 // [scores and weights, 2*channels], [scores and weights]
}

// conv is a convolution of 3x3 with zeros around, then ReLU.
type conv struct {
	in, out, stride int
	w, b            []float32 // [out, in, 3, 3], [out]
}

// verdict is a choice in each group.
type verdict struct {
	texture world.Texture
	colour  world.Colour
	floor   world.Floor
	sky     world.Sky
}

// The sizes of the groups of scores, in order.
var judgeGroups = [4]int{8, 12, 6, 6}

const judgeScores, judgeOut = 8 + 12 + 6 + 6, 8 + 12 + 6 + 6 + 4

func newJudge(raw []byte) (*judge, error) {
	j := &judge{convs: [4]conv{{in: 3, out: 32, stride: 2}, {in: 32, out: 64, stride: 2}, {in: 64, out: 96, stride: 2}, {in: 96, out: 96, stride: 1}}}
	take := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			if len(raw) >= 2 {
				out[i], raw = compute.F32FromBF16(binary.LittleEndian.Uint16(raw)), raw[2:]
			}
		}
		return out
	}
	want := 0
	for i := range j.convs {
		c := &j.convs[i]
		want += 2 * (9*c.in*c.out + c.out)
	}
	want += 2 * (192*judgeOut + judgeOut)
	if len(raw) != want {
		return nil, fmt.Errorf("judge of %d bytes, want %d", len(raw), want)
	}
	for i := range j.convs {
		c := &j.convs[i]
		c.w, c.b = take(9*c.in*c.out), take(c.out)
	}
	j.w, j.b = take(192*judgeOut), take(judgeOut)
	return j, nil
}

// apply runs the convolution on x [in, size, size].
func (c *conv) apply(x []float32, size int) ([]float32, int) {
	small := (size-1)/c.stride + 1
	out := make([]float32, c.out*small*small)
	for o := range c.out {
		y := out[o*small*small:][:small*small]
		for i := range y {
			y[i] = c.b[o]
		}
		for i := range c.in {
			c.add(y, x[i*size*size:][:size*size], c.w[(o*c.in+i)*9:][:9], size, small)
		}
		for i, v := range y {
			y[i] = max(v, 0)
		}
	}
	return out, small
}

// add adds one input plane, weighed by w [3, 3], to an output plane.
func (c *conv) add(y, x, w []float32, size, small int) {
	for row := range small {
		for ky := range 3 {
			from := row*c.stride + ky - 1
			if from < 0 || from >= size {
				continue
			}
			line := x[from*size:][:size]
			for column := range small {
				at, sum := column*c.stride-1, float32(0)
				for kx := range 3 {
					if k := at + kx; k >= 0 && k < size {
						sum += w[3*ky+kx] * line[k]
					}
				}
				y[row*small+column] += sum
			}
		}
	}
}

// judgeSize is the width and height of the frames that the judge was trained on.
const judgeSize = 64

// seen is a frame as the judge knows them: its middle square, by means over places of equal size; frames of 64x64 as they are.
func seen(f video.Frame) video.Frame {
	if f.Width == judgeSize && f.Height == judgeSize {
		return f
	}
	side := min(f.Width, f.Height)
	out, left, top := video.NewFrame(judgeSize, judgeSize), (f.Width-side)/2, (f.Height-side)/2
	for y := range judgeSize {
		y0 := top + y*side/judgeSize
		y1 := max(top+(y+1)*side/judgeSize, y0+1)
		for x := range judgeSize {
			x0 := left + x*side/judgeSize
			x1 := max(left+(x+1)*side/judgeSize, x0+1)
			for c := range 3 {
				sum, n := 0, (y1-y0)*(x1-x0)
				for row := y0; row < y1; row++ {
					for column := x0; column < x1; column++ {
						sum += int(f.Pix[3*(row*f.Width+column)+c])
					}
				}
				out.Pix[3*(y*judgeSize+x)+c] = byte((sum + n/2) / n)
			}
		}
	}
	return out
}

// see returns the scores of a frame of judgeSize, and behind them how much it says of each group.
func (j *judge) see(f video.Frame) (out [judgeOut]float64) {
	n := f.Width * f.Height
	x := make([]float32, 3*n)
	for i, v := range f.Pix {
		x[i%3*n+i/3] = float32(v)/127.5 - 1
	}
	size := f.Width
	for i := range j.convs {
		x, size = j.convs[i].apply(x, size)
	}
	channels := len(x) / (size * size)
	pooled := make([]float32, 2*channels)
	for c := range channels {
		plane := x[c*size*size:][:size*size]
		total, most := float32(0), plane[0]
		for _, v := range plane {
			total, most = total+v, max(most, v)
		}
		pooled[c], pooled[channels+c] = total/float32(len(plane)), most
	}
	for s := range out {
		v := j.b[s]
		for c, p := range pooled {
			v += j.w[s*len(pooled)+c] * p
		}
		out[s] = float64(v)
	}
	return out
}

// judge chooses in each group what the views say together.
func (j *judge) judge(views []video.Frame) verdict {
	scores := make([][judgeOut]float64, len(views))
	for i, f := range views {
		scores[i] = j.see(seen(f))
	}
	var best [4]int
	at := 0
	for g, n := range judgeGroups {
		top, most := math.Inf(-1), math.Inf(-1)
		for _, v := range scores {
			top = max(top, v[judgeScores+g])
		}
		for i := range n {
			sum := 0.0
			for _, v := range scores {
				sum += v[at+i] * math.Exp(v[judgeScores+g]-top)
			}
			if sum > most {
				most, best[g] = sum, i
			}
		}
		at += n
	}
	return verdict{world.Texture(best[0]), world.Colour(best[1]), world.Floor(best[2]), world.Sky(best[3])}
}

// prompted makes the views of a turn on the spot from the prompt alone, and asks the judge whether they show the start room and
// the sky that the prompt names; and of the simulator's own views, whether it can be believed.
func (o *PlayOptions) prompted(ctx context.Context, entry Entry, s scene) (*found, error) {
	j, err := newJudge(judgeWeights)
	if err != nil {
		return nil, err
	}
	var truth []video.Frame
	at := s.poses[0]
	for i := range s.actions {
		s.actions[i] = int(world.TurnRight)
		if i == 0 {
			s.actions[i] = int(world.Noop)
		} else {
			at = s.world.Step(at, world.TurnRight)
		}
		truth = append(truth, s.truth(at))
	}
	frames, _, last, err := o.free(ctx, entry, s, 0)
	if err != nil {
		return nil, err
	}
	room := s.world.Room(s.world.Region(at.X, at.Y))
	want := verdict{room.Texture, room.Colour, room.Floor, s.world.Sky()}
	f := &found{frames: frames, last: last}
	for name, views := range map[string][]video.Frame{"first frame": frames[:1], "a turn": frames, "a turn of the simulator": truth} {
		got := j.judge(views)
		right := map[string]bool{"texture": got.texture == want.texture, "colour": got.colour == want.colour, "floor": got.floor == want.floor, "sky": got.sky == want.sky}
		all := 1.0
		for _, part := range []string{"texture", "colour", "floor", "sky"} {
			v := 0.0
			if right[part] {
				v = 1
			}
			all = min(all, v)
			f.note(name+": "+part, v)
		}
		f.note(name+": all four", all)
	}
	slices.Sort(f.names)
	return f, nil
}
