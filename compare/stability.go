package compare

import (
	"context"
	"fmt"

	"longtake/kvcache"
	"longtake/video"
	"longtake/world"
)

// Stability: statistics are means over so many frames up to a mark.
const stableFrames = 50

// marks are the frames at which Stability looks.
var marks = []int{100, 300, 1000, 2000, 3000}

// looks are the statistics of some pictures: mean gradient, mean and standard deviation of all values, of 255; how many are flat, and how many
// were to come of a step that a wall stopped.
type looks struct{ edges, mean, spread, flat, stopped, n float64 }

// flatEdges is the mean gradient below which a picture is nearly of one colour: a wall from nearby.
const flatEdges = 4

func (l *looks) add(f video.Frame, stopped bool) {
	mean, spread := colours([]video.Frame{f})
	e := edges(f)
	l.edges, l.mean, l.spread, l.n = l.edges+e, l.mean+mean, l.spread+spread, l.n+1
	if e < flatEdges {
		l.flat++
	}
	if stopped {
		l.stopped++
	}
}

// note writes the statistics of a mark.
func (l looks) note(f *found, of string, at int) {
	for _, s := range []struct {
		name  string
		value float64
	}{{sharpness, l.edges}, {colour, l.mean}, {contrast, l.spread}, {"flat frames", l.flat}, {"steps stopped", l.stopped}} {
		f.note(fmt.Sprintf("%s at %d, %s", s.name, at, of), s.value/l.n)
	}
}

// The statistics by name, and who made the pictures.
const (
	sharpness, colour, contrast = "sharpness", "mean colour", "spread"

	dreamt, trueAstray = "dream", "true walks astray"
)

// stability walks on for a long time and asks what the pictures of some frames are like, beside those that the same actions show at the same frames
// in true worlds whose walls they do not know: a player of either looks at walls from nearby more often as time goes on.
func (o *PlayOptions) stability(ctx context.Context, entry Entry, s scene) (*found, error) {
	frames, poses, last, err := o.free(ctx, entry, s, o.Given)
	if err != nil {
		return nil, err
	}
	f := &found{frames: frames, last: last}
	again, err := returns(frames, poses)
	if err != nil {
		return nil, err
	}
	f.note("places of the dream, dB to what was there", again)
	real, err := o.looksAstray(s)
	if err != nil {
		return nil, err
	}
	for _, at := range o.marks() {
		made := looks{}
		for i := at - stableFrames; i < at; i++ {
			made.add(frames[i], o.stopped(poses[i-1], poses[i], s.actions[i]))
		}
		made.note(f, dreamt, at)
		real[at].note(f, trueAstray, at)
	}
	return f, nil
}

// stopped reports whether an action was to move the player of a dream and did not.
func (o *PlayOptions) stopped(from, to kvcache.Pose, action int) bool {
	want := o.Engine.Advance(from, action)
	return (want.X != from.X || want.Y != from.Y) && to.X == from.X && to.Y == from.Y
}

// marks are those inside the clip, behind what is given.
func (o *PlayOptions) marks() (in []int) {
	for _, at := range marks {
		if at <= o.Frames && at-stableFrames >= o.Given {
			in = append(in, at)
		}
	}
	return in
}

// looksAstray are the statistics, by mark, of what the scene's actions show in other worlds; every fifth frame is looked at.
func (o *PlayOptions) looksAstray(s scene) (map[int]looks, error) {
	const every = 5
	out := map[int]looks{}
	err := o.strayed(s, func(other scene, i int, from, to world.Pose) {
		for _, mark := range o.marks() {
			if i >= mark-stableFrames && i < mark && i%every == 0 {
				want, l := from.Advance(world.Action(s.actions[i])), out[mark]
				l.add(other.truth(to), (want.X != from.X || want.Y != from.Y) && to.X == from.X && to.Y == from.Y)
				out[mark] = l
			}
		}
	})
	return out, err
}

// ratios are what has become of the statistics at the last mark, as shares of those at the first: means over all clips against each other.
func (row *PlayRow) ratios(marks []int) {
	if len(marks) < 2 {
		return
	}
	first, last := marks[0], marks[len(marks)-1]
	for _, of := range []string{dreamt, trueAstray} {
		for _, name := range []string{sharpness, colour, contrast} {
			a, b := row.clips(fmt.Sprintf("%s at %d, %s", name, last, of)), row.clips(fmt.Sprintf("%s at %d, %s", name, first, of))
			row.Findings = append(row.Findings, ratio(fmt.Sprintf("%s at %d, of that at %d, %s", name, last, first, of), a, b))
		}
	}
}
