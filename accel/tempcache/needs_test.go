package tempcache_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
	"longtake/video"
	"longtake/world"
)

// TestHeadsHaveTheRoomOfTheirShares shows nothing but new keys: every head fills its room and never exceeds it, and all rooms together are
// the budget's.
func TestHeadsHaveTheRoomOfTheirShares(t *testing.T) {
	s := small
	s.Layers, s.Heads = 2, 4
	p := tempcache.Default()
	p.Recent, p.Budget.Frames, p.Shares = 1, 1+1+10, []float64{1, 2, 3, 4, 0.5, 0.25, 0.25, 5}
	b := newBench(t, p, s)
	rng := rand.New(rand.NewPCG(11, 12))
	mean, total := 10*s.Tokens(), 0
	for range 60 {
		b.frame(numbers(rng, s), numbers(rng, s))
		for i, h := range b.cache.Stats().Heads {
			if room := int(float64(mean) * p.Shares[i] * 8 / 16); h.Kept > room {
				t.Fatalf("frame %d: head %d has %d entries in a room of %d", b.n, i, h.Kept, room)
			}
		}
	}
	for _, h := range b.cache.Stats().Heads {
		total += h.Kept
	}
	if want := mean * 8; total != want {
		t.Errorf("%d entries, want %d", total, want)
	}
	bytes := p.Bytes(b.dev, s)
	if got := b.cache.Stats().Bytes; got != bytes {
		t.Errorf("%d bytes, %d were known beforehand", got, bytes)
	}
}

// TestSharedDecisionsGiveHeadsTheirLayersMean compares shares of heads with those of layers where heads decide together.
func TestSharedDecisionsGiveHeadsTheirLayersMean(t *testing.T) {
	s := small
	s.Layers = 2
	p := tempcache.Default()
	p.Recent, p.Budget.Frames, p.Shared, p.Shares = 1, 1+1+10, true, []float64{1, 3, 5, 7}
	q := p
	q.Shares = []float64{2, 6}
	one, other := newBench(t, p, s), newBench(t, q, s)
	rng := rand.New(rand.NewPCG(13, 14))
	for range 30 {
		k, v := numbers(rng, s), numbers(rng, s)
		one.frame(k, v)
		other.frame(k, v)
	}
	k, v, q0 := numbers(rng, s), numbers(rng, s), numbers(rng, s)
	a, b := one.attend(k, v, q0), other.attend(k, v, q0)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("element %d is %v with shares of heads, %v with their means", i, a[i], b[i])
		}
	}
}

// merging is a device that says that it merges by itself.
type merging struct{ compute.Device }

// Merges does nothing.
func (merging) Merges() {}

// TestDevicesThatMergeGiveHeadsTheirLayersMean counts the memory: a layer takes its mean, not its fullest head's need for all.
func TestDevicesThatMergeGiveHeadsTheirLayersMean(t *testing.T) {
	host, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	s := small
	s.Layers = 2
	p := tempcache.Default()
	p.Recent, p.Budget.Frames, p.Shares = 1, 1+1+10, []float64{1, 3, 5, 7}
	q := p
	q.Shares = []float64{2, 6}
	if got, want := p.Bytes(merging{host}, s), q.Bytes(merging{host}, s); got != want {
		t.Errorf("%d bytes, with the layers' means %d", got, want)
	}
	if got, less := p.Bytes(host, s), q.Bytes(host, s); got <= less {
		t.Errorf("on the host %d bytes, with the layers' means %d: want more", got, less)
	}
}

// TestMeasureNeeds prints how much each head of the embedded model has to remember, in units of the mean, as model.OpenTinyWorld has it.
func TestMeasureNeeds(t *testing.T) {
	if os.Getenv("LONGTAKE_NEEDS") == "" {
		t.Skip("half a minute of measuring: LONGTAKE_NEEDS=1 go test ./accel/tempcache -run MeasureNeeds -v")
	}
	e := modeltest.TinyWorld(t, cpu.Options{})
	p := tempcache.Default()
	p.Recent, p.Threshold, p.MaxChange = 16, 0.92, 0
	sums := make([]float64, e.CacheShape.Layers*e.CacheShape.Heads)
	total := 0.0
	for _, c := range []struct {
		seed         uint32
		given, until int
	}{{101, 161, 162}, {102, 161, 162}, {0, 10, 160}, {105, 10, 160}} {
		for i, n := range tempcache.Needs(strolled(t, e, p, c.seed, c.given, c.until).Heads) {
			sums[i] += n
			total += n
		}
	}
	for l := range e.CacheShape.Layers {
		var row []string
		for h := range e.CacheShape.Heads {
			row = append(row, fmt.Sprintf("%.3f", math.Round(sums[l*e.CacheShape.Heads+h]*float64(len(sums))/total*1000)/1000))
		}
		fmt.Println("\t" + strings.Join(row, ", ") + ",")
	}
}

// strolled returns what a cache holds after a stroll, of which the first frames are given and the others made.
func strolled(t *testing.T, e *rollout.Engine, p tempcache.Policy, seed uint32, given, until int) kvcache.Stats {
	walk, err := world.NewEpisode(seed, until+1, world.Stroll, 40)
	if err != nil {
		t.Fatal(err)
	}
	var frames []video.Frame
	for _, pose := range walk.Poses[:given] {
		f := video.NewFrame(64, 64)
		walk.World.Render(f.Pix, pose, 64, 64)
		frames = append(frames, f)
	}
	actions := make([]int, len(walk.Actions))
	for i, a := range walk.Actions {
		actions[i] = int(a)
	}
	session, err := e.NewSession(t.Context(), rollout.Request{Prompt: walk.Prompt(), Seed: 7, Cache: p, Start: frames, StartActions: actions[:given],
		Heading: walk.Poses[0].Heading})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for f := given; f < until; f++ {
		if _, err := session.Next(t.Context(), actions[f]); err != nil {
			t.Fatal(err)
		}
	}
	return session.Stats()
}
