package world

import "fmt"

// A Kind says how the player of an episode moves.
type Kind uint8

// The kinds of episode.
const (
	// Mixed walks, looks around, turns back and returns, at random.
	Mixed Kind = iota
	// LookAround turns span frames one way, then span frames back, again and again.
	LookAround
	// Circles turns one way for ever; a full circle takes Headings frames.
	Circles
	// WalkAndUndo walks for span frames, then undoes every action in reverse order.
	WalkAndUndo
	// WalkAndReturn walks for span frames without touching a wall, turns round, walks back
	// the same way and turns round again.
	WalkAndReturn
	// Stroll is Mixed with strafes, more steps retraced, and few walls touched.
	Stroll
	numKinds
)

var kindNames = [numKinds]string{"mixed", "look-around", "circles", "walk-and-undo", "walk-and-return", "stroll"}

// String returns the kind's name, such as "look-around".
func (k Kind) String() string { return word(kindNames[:], int(k)) }

// An Episode is one player's way through a world.
type Episode struct {
	World   *World
	Tokens  []int    // the prompt as token ids, without padding
	Poses   []Pose   // of each frame
	Actions []Action // Actions[t] led from frame t-1 to frame t; Actions[0] is Noop
}

// Prompt returns the text of the episode's prompt.
func (e *Episode) Prompt() string {
	text, err := Decode(e.Tokens)
	if err != nil {
		panic(err) // describe writes known tokens only
	}
	return text
}

// NewEpisode makes the episode of a seed: its world, prompt, and a player who moves as
// kind says. Span counts frames and matters to [LookAround], [WalkAndUndo] and
// [WalkAndReturn], which need at least 1. A longer episode of the same seed, kind and span begins with the
// shorter one. It is an error to ask for no frame or for more than [MaxActions].
func NewEpisode(seed uint32, frames int, kind Kind, span int) (*Episode, error) {
	switch {
	case frames < 1 || frames > MaxActions:
		return nil, fmt.Errorf("episode of %d frames: must be between 1 and %d", frames, MaxActions)
	case kind >= numKinds:
		return nil, fmt.Errorf("episode kind %d: must be below %d", kind, numKinds)
	case (kind == LookAround || kind == WalkAndUndo || kind == WalkAndReturn) && (span < 1 || span > MaxActions):
		return nil, fmt.Errorf("%s episode with span %d: must be between 1 and %d", kind, span, MaxActions)
	}
	r := newSource(seed)
	w := build(r)
	start := w.spawn(r)
	ids := w.describe(w.Region(start.X, start.Y), r)
	p := newPlayer(w, r, start, frames)
	for t := 1; t < frames; t++ {
		p.act(p.next(seed, kind, span))
	}
	return &Episode{World: w, Tokens: ids, Poses: p.poses, Actions: p.actions}, nil
}

// next returns the action of an episode's next frame.
func (p *player) next(seed uint32, kind Kind, span int) Action {
	t := len(p.poses)
	switch {
	case kind == LookAround:
		return lookAround(seed, t, span)
	case kind == Circles:
		return mirrored(TurnRight, seed)
	case kind == WalkAndUndo && t > span:
		return p.actions[max(0, 2*span+1-t)].opposite()
	case kind == WalkAndUndo:
		a := p.choose(true)
		if a == ForwardLeft || a == ForwardRight {
			a = Forward // a combined action cannot be undone
		}
		return a
	case kind == WalkAndReturn && t > span:
		return p.comeBack(t-span-1, span)
	case kind == WalkAndReturn, kind == Stroll:
		return p.stroll(kind == WalkAndReturn)
	}
	return p.choose(false)
}

// AutoActions returns the n actions with which the [Mixed] player of a seed leaves its
// first frame: an endless supply of plausible input. Up to [MaxActions]-1 may be had.
func AutoActions(seed uint32, n int) ([]Action, error) {
	if n < 0 || n >= MaxActions {
		return nil, fmt.Errorf("%d automatic actions: must be between 0 and %d", n, MaxActions-1)
	}
	e, err := NewEpisode(seed, n+1, Mixed, 0)
	if err != nil {
		return nil, err
	}
	return e.Actions[1:], nil
}

// spawn chooses a free cell and a heading.
func (w *World) spawn(r *source) Pose {
	for {
		x := 1 + r.intn(Size-2)
		y := 1 + r.intn(Size-2)
		if w.free(x, y) {
			return Pose{X: f32(x) + 0.5, Y: f32(y) + 0.5, Heading: r.intn(Headings)}
		}
	}
}

func lookAround(seed uint32, t, span int) Action {
	if (t-1)%(2*span) < span {
		return mirrored(TurnRight, seed)
	}
	return mirrored(TurnLeft, seed)
}

// mirrored swaps left and right for odd seeds.
func mirrored(turn Action, seed uint32) Action {
	if seed&1 == 1 {
		return turn.opposite()
	}
	return turn
}
