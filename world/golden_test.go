package world

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func goldenLines(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func mustEpisode(t testing.TB, seed uint32, frames int, kind Kind, span int) *Episode {
	t.Helper()
	e, err := NewEpisode(seed, frames, kind, span)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// digest hashes an episode as driver.cc does.
func digest(e *Episode) string {
	h := fnv.New64a()
	w := bufio.NewWriter(h)
	for _, wall := range e.World.cells {
		var b byte
		if wall {
			b = 1
		}
		w.WriteByte(b)
	}
	var word [8]byte
	for _, id := range e.Tokens {
		binary.LittleEndian.PutUint16(word[:], uint16(id))
		w.Write(word[:2])
	}
	for _, a := range e.Actions {
		w.WriteByte(byte(a))
	}
	for _, p := range e.Poses {
		binary.LittleEndian.PutUint32(word[:], math.Float32bits(p.X))
		binary.LittleEndian.PutUint32(word[4:], math.Float32bits(p.Y))
		w.Write(word[:])
		w.WriteByte(byte(p.Heading))
	}
	w.Flush()
	return fmt.Sprintf("%016x", h.Sum64())
}

func TestEpisodesEqualTheTrainedSimulators(t *testing.T) {
	for _, line := range goldenLines(t, "episodes.jsonl") {
		var want struct {
			Seed    uint32
			Kind    Kind
			Span    int
			Map     []string
			Tokens  []int
			Actions []Action
			Poses   [][3]float64
		}
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatal(err)
		}
		got := mustEpisode(t, want.Seed, len(want.Actions), want.Kind, want.Span)
		name := fmt.Sprintf("%s seed %d", want.Kind, want.Seed)
		if m := strings.Join(want.Map, "\n") + "\n"; got.World.String() != m {
			t.Errorf("%s: map\n%swant\n%s", name, got.World, m)
		}
		if !slices.Equal(got.Tokens, want.Tokens) {
			t.Errorf("%s: tokens\n%v\nwant\n%v", name, got.Tokens, want.Tokens)
		}
		for i, a := range want.Actions {
			p := Pose{float32(want.Poses[i][0]), float32(want.Poses[i][1]), int(want.Poses[i][2])}
			if got.Actions[i] != a || got.Poses[i] != p {
				t.Errorf("%s frame %d: %v %v, want %v %v", name, i, got.Actions[i], got.Poses[i], a, p)
				break
			}
		}
	}
}

func TestThreeThousandDigestsEqualTheTrainedSimulators(t *testing.T) {
	for _, line := range goldenLines(t, "digests.txt") {
		var seed uint32
		var kind Kind
		var span int
		var want string
		if _, err := fmt.Sscan(line, &seed, &kind, &span, &want); err != nil {
			t.Fatal(err)
		}
		if got := digest(mustEpisode(t, seed, 96, kind, span)); got != want {
			t.Errorf("%s seed %d span %d: digest %s, want %s", kind, seed, span, got, want)
		}
	}
}

func TestFramesEqualTheTrainedSimulatorsUpToRounding(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "frames.rgb"))
	if err != nil {
		t.Fatal(err)
	}
	var off, far, total int
	for _, line := range goldenLines(t, "frames.txt") {
		var seed uint32
		var frame, width, height int
		if _, err := fmt.Sscan(line, &seed, &frame, &width, &height); err != nil {
			t.Fatal(err)
		}
		size := 3 * width * height
		want := data[:size]
		data = data[size:]
		e := mustEpisode(t, seed, frame+1, Mixed, 0)
		got := make([]byte, size)
		e.World.Render(got, e.Poses[frame], width, height)
		frameOff, frameFar, worst := 0, 0, 0
		for i := range got {
			d := int(got[i]) - int(want[i])
			worst = max(worst, d, -d)
			if d != 0 {
				frameOff++
			}
			if d < -1 || d > 1 {
				frameFar++
			}
		}
		if frameFar*1000 > size {
			t.Errorf("seed %d frame %d: %d of %d values differ by more than 1, worst %d", seed, frame, frameFar, size, worst)
		}
		off, far, total = off+frameOff, far+frameFar, total+size
	}
	if len(data) != 0 {
		t.Errorf("%d bytes left in frames.rgb", len(data))
	}
	t.Logf("%d of %d values differ, %d by more than 1", off, total, far)
}
