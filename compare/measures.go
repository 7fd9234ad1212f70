package compare

import (
	"context"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/kvcache"
	"longtake/rollout"
	"longtake/video"
	"longtake/video/metric"
	"longtake/world"
)

// nextFrame makes every frame of a walk after the true ones before it.
func (o *PlayOptions) nextFrame(ctx context.Context, entry Entry, s scene) (*found, error) {
	latents, err := o.latents(s)
	if err != nil {
		return nil, err
	}
	s.request.Peek = true
	s.given(1)
	t, err := newTake(ctx, o.Engine, entry.Request(s.request), s.actions)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	f := &found{frames: []video.Frame{s.request.Start[0]}}
	sum, made, real, known, unseen := 0.0, 0.0, 0.0, mean{}, 0.0
	seen := make([]bool, o.Engine.Width*o.Engine.Height)
	for i := 1; i < o.Frames; i++ {
		frames, err := t.Peek(ctx, s.actions[i])
		if err != nil {
			return nil, err
		}
		want := s.truth(s.poses[i])
		db, err := metric.PSNR(frames[0], want)
		if err != nil {
			return nil, err
		}
		sum, made, real = sum+min(db, equalDecibels), made+edges(frames[0]), real+edges(want)
		s.world.Seen(seen, s.poses[i], s.poses[:i], o.Engine.Width, o.Engine.Height)
		if db, err = metric.PSNRWhere(frames[0], want, seen); err != nil {
			return nil, err
		}
		if n := count(seen); n > 0 {
			known.add(db)
			unseen += 1 - float64(n)/float64(len(seen))
		} else {
			unseen++
		}
		f.frames = append(f.frames, frames[0])
		if err := t.Force(ctx, latents[i], s.actions[i]); err != nil {
			return nil, err
		}
	}
	f.note("PSNR to the truth, dB", sum/float64(o.Frames-1))
	f.note("PSNR where earlier frames have shown it, dB", known.value())
	f.note("share that no earlier frame has shown", unseen/float64(o.Frames-1))
	f.note("sharpness of the truth's", made/real)
	f.last = sizes(t)
	return f, nil
}

// latents encodes all true frames of a scene.
func (o *PlayOptions) latents(s scene) (out [][]float32, err error) {
	e := o.Engine
	dq, err := e.Device.NewQueue()
	if err != nil {
		return nil, err
	}
	defer dq.Close()
	meter := &compute.Meter{Device: e.Device}
	var encoder rollout.Encoder
	var latent compute.Tensor
	allocate := func(a compute.Arena) (err error) {
		latent = a.Tensor(compute.F32, e.Network.Tokens(), e.Network.In)
		encoder, err = e.NewEncoder(a, len(s.poses))
		return err
	}
	if err := allocate(meter); err != nil {
		return nil, err
	}
	arena, err := e.Device.NewArena(meter.Bytes())
	if err != nil {
		return nil, err
	}
	defer arena.Free()
	if err := allocate(arena); err != nil {
		return nil, err
	}
	for _, p := range s.poses {
		if _, err := encoder.Push(dq, latent, s.truth(p)); err != nil {
			return nil, err
		}
		values, err := rollout.Download(dq, latent)
		if err != nil {
			return nil, err
		}
		out = append(out, values)
	}
	return out, dq.Err()
}

// obedience asks, from true frames, for every action, and whether the simulator's picture of that action is nearest to the one
// that was made. Places in which a wall is in any action's way are walked past.
func (o *PlayOptions) obedience(ctx context.Context, entry Entry, s scene) (*found, error) {
	last := -1
	for i := range s.poses {
		if i >= o.Given-1 && free(s, s.poses[i], len(o.Engine.Turns)) {
			last = i
			break
		}
	}
	f := &found{}
	if last < 0 {
		f.note("obeyed", math.NaN())
		f.frames = []video.Frame{s.truth(s.poses[0])}
		return f, nil
	}
	s.request.Peek = true
	s.given(last + 1)
	t, err := newTake(ctx, o.Engine, entry.Request(s.request), s.actions)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	var wants []video.Frame
	for a := range o.Engine.Turns {
		wants = append(wants, s.truth(s.world.Step(s.poses[last], world.Action(a))))
	}
	obeyed := 0
	for a := range o.Engine.Turns {
		frames, err := t.Peek(ctx, a)
		if err != nil {
			return nil, err
		}
		best, at := math.Inf(-1), -1
		for i, want := range wants {
			db, err := metric.PSNR(frames[0], want)
			if err != nil {
				return nil, err
			}
			if db > best {
				best, at = db, i
			}
		}
		if at == a {
			obeyed++
		}
		f.frames = append(f.frames, frames[0])
	}
	f.note("obeyed", float64(obeyed)/float64(len(wants)))
	f.last = sizes(t)
	return f, nil
}

// free reports whether every action leads from a pose to one of its own.
func free(s scene, p world.Pose, actions int) bool {
	for a := range world.Action(actions) {
		if s.world.Step(p, a) != p.Advance(a) {
			return false
		}
	}
	return true
}

// walls walks from one true frame straight into what is there for half of the frames, and back for the other half. A dream locks
// up where the way back neither moves nor shows anything.
func (o *PlayOptions) walls(ctx context.Context, entry Entry, s scene) (*found, error) {
	half := (o.Frames - 1) / 2
	for i := 1; i < o.Frames; i++ {
		s.actions[i] = int(world.Forward)
		if i > half {
			s.actions[i] = int(world.Back)
		}
	}
	frames, _, last, err := o.free(ctx, entry, s, 1)
	if err != nil {
		return nil, err
	}
	f := &found{frames: frames, last: last}
	start := edges(frames[0])
	f.note("change a step at the wall, of 255", change(frames, half-4, half))
	f.note("change a step on the way back, of 255", change(frames, half+2, half+10))
	f.note("sharpness at the wall, of the start's", edges(frames[half])/start)
	f.note("sharpness after the way back", edges(frames[len(frames)-1])/start)
	locked := 0.0
	if change(frames, half+2, half+10) < lockedChange && edges(frames[min(half+10, len(frames)-1)]) < start/2 {
		locked = 1
	}
	f.note("locked", locked)
	return f, nil
}

// lockedChange is what a step changes a picture by, of 255, below which nobody would call it a step: 2.2 is the least of true ones.
const lockedChange = 2.2

// free makes the rest of a scene after its first given frames, and tells where each frame was made, as the session reckons.
func (o *PlayOptions) free(ctx context.Context, entry Entry, s scene, given int) ([]video.Frame, []kvcache.Pose, tick, error) {
	s.given(given)
	frames := append([]video.Frame(nil), s.request.Start...)
	t, err := newTake(ctx, o.Engine, entry.Request(s.request), s.actions)
	if err != nil {
		return nil, nil, tick{}, err
	}
	defer t.Close()
	poses := make([]kvcache.Pose, given)
	for i := range given {
		poses[i].X, poses[i].Y = math.NaN(), math.NaN() // given frames are no part of the dream
	}
	for i := given; i < o.Frames; i++ {
		more, err := t.Next(ctx, s.actions[i])
		if err != nil {
			return nil, nil, tick{}, err
		}
		frames, poses = append(frames, more...), append(poses, t.Pose())
	}
	return frames, poses, sizes(t), nil
}

func sizes(t *take) tick {
	s := t.Stats()
	return tick{cacheBytes: s.Bytes, allBytes: t.Bytes(), tokens: s.Tokens}
}

// stroll walks on after the given frames: places of given frames against the truth, places of the dream against what was dreamt
// there before, sharpness against the truth of the same walk, and how colours drift.
func (o *PlayOptions) stroll(ctx context.Context, entry Entry, s scene) (*found, error) {
	frames, poses, last, err := o.free(ctx, entry, s, o.Given)
	if err != nil {
		return nil, err
	}
	f := &found{frames: frames, last: last}
	seen, known, other := world.Revisits(s.poses, o.Given), mean{}, mean{}
	for i := o.Given; i < o.Frames; i++ {
		db, err := metric.PSNR(frames[i], s.truth(s.poses[i]))
		if err != nil {
			return nil, err
		}
		if seen[i] >= 0 {
			known.add(db)
		} else {
			other.add(db)
		}
	}
	f.note("places of given frames, dB to the truth", known.value())
	f.note("other places, dB to the truth", other.value())
	again, err := returns(frames, poses)
	if err != nil {
		return nil, err
	}
	f.note("places of the dream, dB to what was there", again)
	astray, err := o.astray(s)
	if err != nil {
		return nil, err
	}
	for _, at := range []int{16, 64, 100, 256, 1000, 3000} {
		if at <= o.Frames && at-8 >= o.Given {
			made, real := mean{}, mean{}
			for i := at - 8; i < at; i++ {
				made.add(edges(frames[i]))
				real.add(edges(s.truth(s.poses[i])))
			}
			f.note(fmt.Sprintf("sharpness at %d, of the truth's", at), made.value()/real.value())
			f.note(fmt.Sprintf("sharpness at %d, of true walks astray", at), made.value()/astray)
		}
	}
	early, late := min(100, o.Frames/2), o.Frames
	m0, s0 := colours(frames[early-8 : early])
	m1, s1 := colours(frames[late-8 : late])
	f.note("mean colour at the end, of 255, less that at frame 100", m1-m0)
	f.note("spread of colours at the end, of that at frame 100", s1/s0)
	return f, nil
}

// astrayWorlds is how many other worlds a scene's actions are tried in.
const astrayWorlds = 8

// strayed goes the scene's way in other worlds, whose walls its actions do not know, as they do not know those of a dream: such walks look
// at walls from nearby more often than those for which the actions were chosen. Visit hears of each step i from one pose to the next.
func (o *PlayOptions) strayed(s scene, visit func(other scene, i int, from, to world.Pose)) error {
	for n := range uint32(astrayWorlds) {
		other, err := o.scene(s.seed + (n+1)*1_000_000)
		if err != nil {
			return err
		}
		at := other.poses[0]
		for i, a := range s.actions {
			from := at
			at = other.world.Step(from, world.Action(a))
			visit(other, i, from, at)
		}
	}
	return nil
}

// astray is the mean sharpness of what the scene's actions show in other worlds.
func (o *PlayOptions) astray(s scene) (float64, error) {
	every, m := max(1, len(s.actions)/48), mean{}
	err := o.strayed(s, func(other scene, i int, _, to world.Pose) {
		if i%every == 0 {
			m.add(edges(other.truth(to)))
		}
	})
	return m.value(), err
}

// returns compares a dream's frames with the newest one that was made at the same place at least 30 steps or turns earlier.
func returns(frames []video.Frame, poses []kvcache.Pose) (float64, error) {
	const apart, near = 30, 0.05
	m, moved := mean{}, make([]int, len(poses)) // steps and turns up to each frame
	for i := range frames {
		if i > 0 {
			moved[i] = moved[i-1]
			if poses[i] != poses[i-1] {
				moved[i]++
			}
		}
		for j := i - apart; j >= 0; j-- {
			away := math.Hypot(poses[i].X-poses[j].X, poses[i].Y-poses[j].Y)
			if moved[i]-moved[j] < apart || poses[i].Heading != poses[j].Heading || !(away <= near) {
				continue
			}
			db, err := metric.PSNR(frames[i], frames[j])
			if err != nil {
				return 0, err
			}
			m.add(db)
			break
		}
	}
	return m.value(), nil
}

// mean is of decibels or other numbers; equal pictures count as equalDecibels, and nothing has none.
type mean struct{ sum, n float64 }

func (m *mean) add(v float64) { m.sum, m.n = m.sum+min(v, equalDecibels), m.n+1 }

func (m *mean) value() float64 { return m.sum / m.n }

// edges is the mean absolute difference of neighbouring pixels, down and across.
func edges(f video.Frame) float64 {
	sum, row := 0, 3*f.Width
	for i, v := range f.Pix {
		if i >= row {
			sum += abs(int(v) - int(f.Pix[i-row]))
		}
		if i%row >= 3 {
			sum += abs(int(v) - int(f.Pix[i-3]))
		}
	}
	return float64(sum) / float64(len(f.Pix))
}

// change is the mean absolute difference from the frame before over frames lo+1 to hi.
func change(frames []video.Frame, lo, hi int) float64 {
	sum, n := 0, 0
	for i := max(lo, 0) + 1; i <= min(hi, len(frames)-1); i++ {
		for k, v := range frames[i].Pix {
			sum += abs(int(v) - int(frames[i-1].Pix[k]))
			n++
		}
	}
	return float64(sum) / float64(n)
}

func abs(v int) int { return max(v, -v) }

// colours returns mean and standard deviation of all values.
func colours(frames []video.Frame) (mean, spread float64) {
	n, squares := 0.0, 0.0
	for _, f := range frames {
		for _, v := range f.Pix {
			x := float64(v)
			n, mean, squares = n+1, mean+x, squares+x*x
		}
	}
	mean /= n
	return mean, math.Sqrt(squares/n - mean*mean)
}
