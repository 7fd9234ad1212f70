package pose

import (
	"errors"
	"fmt"
	"math"

	"longtake/compute"
	"longtake/kvcache"
)

// Policy is kvcache.Policy with the rule's constants. The match of two poses at distance d and heading difference h is
// w = exp(-d²/(2 SigmaXY²) - h²/(2 SigmaHeading²)).
type Policy struct {
	// Window is the number of newest frames that are always read, Top the number of older ones.
	Window, Top int
	// MinAge spares younger frames bonus and re-dating.
	MinAge int
	// SigmaXY (cells) and SigmaHeading (heading steps) are the widths of a match.
	SigmaXY, SigmaHeading float64
	// LogMin is the least ln w that counts as a match.
	LogMin float64
	// Gamma*w is added to the logits of a matching frame.
	Gamma float64
	// A frame with w above MoveMin is read as if it were Move frames old.
	Move    int
	MoveMin float64
	// Cover is the match above which one stored frame makes another superfluous.
	Cover float64
	// Budget is the memory of stored frames in bytes: a third of it for keys, or what the view needs, the rest for latents.
	Budget int64
}

// Default is the rule tuned on the embedded model: gamma 5, move 4, the last 6 frames (16 remember no more: docs/design/0005-pose-memory.md) and 2 retrieved ones; the store keeps
// the whole process below 200 MB.
var Default = Policy{
	Window: 6, Top: 2, MinAge: 3, SigmaXY: 0.15, SigmaHeading: 0.8, LogMin: -4.5, Gamma: 5, Move: 4, MoveMin: 0.3,
	Cover: 0.95, Budget: 64 << 20,
}

// String describes the policy.
func (p Policy) String() string {
	return fmt.Sprintf("pose: window %d + %d by pose, store %d MiB", p.Window, p.Top, p.Budget>>20)
}

// keyBytes is the memory that the keys and values of a frame take, latentBytes that of its latents.
func keyBytes(s kvcache.Shape) int64 {
	return 2 * int64(s.Layers*s.Heads*s.Tokens()*s.HeadDim*s.DType.Size())
}

func latentBytes(s kvcache.Shape) int64 { return int64(s.Tokens() * s.Latent * compute.BF16.Size()) }

// least is how many frames must have their keys in store: those of the window, of the chunk and in view.
func (p Policy) least(s kvcache.Shape) int { return p.Window + s.ChunkFrames + max(p.Top, 1) }

// slots returns how many frames have their keys in store.
func (p Policy) slots(s kvcache.Shape) int { return max(p.least(s), int(p.Budget/3/keyBytes(s))) }

// frames returns how many frames are remembered, those of the window included.
func (p Policy) frames(s kvcache.Shape) int {
	return max(0, int((p.Budget-int64(p.slots(s))*keyBytes(s))/max(latentBytes(s), 1)))
}

// Room returns a Budget with which so many frames are remembered.
func (p Policy) Room(s kvcache.Shape, frames int) int64 {
	latents := int64(frames) * latentBytes(s)
	return max(int64(p.least(s))*keyBytes(s)+latents, latents+latents/2+keyBytes(s))
}

// check refuses what cannot work.
func (p Policy) check(s kvcache.Shape) error {
	switch least := p.least(s); {
	case p.Window < 1 || p.Top < 0 || p.Move < 1:
		return fmt.Errorf("pose memory: window %d, top %d, move %d: want at least 1, 0, 1", p.Window, p.Top, p.Move)
	case p.SigmaXY <= 0 || p.SigmaHeading <= 0:
		return fmt.Errorf("pose memory: widths %v and %v must be positive", p.SigmaXY, p.SigmaHeading)
	case s.Clamp > 0 && (p.Window >= s.Clamp || p.Move > s.Clamp):
		return fmt.Errorf("pose memory: window %d and move %d must be below %d, the longest distance the model knows", p.Window, p.Move, s.Clamp)
	case s.Latent < 1:
		return errors.New("pose memory: it is not known how large the latents are from which keys could be made again")
	case p.frames(s) < least+s.ChunkFrames:
		return fmt.Errorf("pose memory of %d bytes is too small: %d frames need at least %d bytes", p.Budget, least+s.ChunkFrames, p.Room(s, least+s.ChunkFrames))
	}
	return nil
}

// logMatch returns ln w of two poses.
func (p Policy) logMatch(a, b kvcache.Pose) float64 {
	d, h := a.Distances(b)
	return -d/(2*p.SigmaXY*p.SigmaXY) - h*h/(2*p.SigmaHeading*p.SigmaHeading)
}

// Bytes returns the memory that New takes.
func (p Policy) Bytes(dev compute.Device, s kvcache.Shape) int64 {
	m := &compute.Meter{Device: dev}
	new(cache).allocate(m, nil, s, p)
	return m.Bytes()
}

// New allocates view and store.
func (p Policy) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (kvcache.Cache, error) {
	if err := p.check(s); err != nil {
		return nil, err
	}
	arena, err := dev.NewArena(p.Bytes(dev, s))
	if err != nil {
		return nil, fmt.Errorf("pose memory: %w", err)
	}
	c := new(cache)
	c.allocate(arena, dq, s, p)
	if err := arena.Err(); err != nil {
		arena.Free()
		return nil, fmt.Errorf("pose memory: %w", err)
	}
	return c, nil
}

// match is a stored frame with how well its pose fits.
type match struct {
	at   int // index into cache.stored
	logW float64
}

// weight returns w, 0 below the least match or for young frames.
func (p Policy) weight(logW float64, age int) float64 {
	if age < p.MinAge || logW <= p.LogMin {
		return 0
	}
	return math.Exp(logW)
}
