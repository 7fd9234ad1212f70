package world

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestVocabularyIsThePublishedOne(t *testing.T) {
	data, err := os.ReadFile("testdata/golden/vocab.json")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if got := Vocabulary(); !slices.Equal(got, want) || len(got) != numWords {
		t.Errorf("%d words %q, want %q", len(got), got, want)
	}
}

func TestPrompts(t *testing.T) {
	t.Run("a prompt's text encodes to its tokens", func(t *testing.T) {
		for seed := range uint32(200) {
			e := mustEpisode(t, seed, 1, Mixed, 0)
			ids, err := Encode(e.Prompt())
			if err != nil || !slices.Equal(ids, e.Tokens) {
				t.Fatalf("seed %d: %v, error %v, want %v", seed, ids, err, e.Tokens)
			}
		}
	})
	t.Run("case and missing spaces do not matter", func(t *testing.T) {
		got, err := Encode("North:red brick walls,grass floor.")
		want, _ := Encode("north : red brick walls , grass floor .")
		if err != nil || !slices.Equal(got, want) || len(want) != 9 {
			t.Errorf("%v, error %v, want %v", got, err, want)
		}
	})
	t.Run("padding decodes to nothing", func(t *testing.T) {
		if text, err := Decode([]int{3, 4, Pad, Pad}); err != nil || text != "you start" {
			t.Errorf("%q, error %v", text, err)
		}
	})
	for name, prompt := range map[string]string{
		"a word the model does not know is an error": "you start in a castle",
		"the padding token is not a word":            "you <pad>",
		"a prompt of too many words is an error":     strings.Repeat("a ", PromptTokens+1),
	} {
		t.Run(name, func(t *testing.T) {
			if ids, err := Encode(prompt); err == nil {
				t.Errorf("no error, tokens %v", ids)
			}
		})
	}
	t.Run("an id outside the vocabulary is an error", func(t *testing.T) {
		for _, id := range []int{-1, numWords} {
			if text, err := Decode([]int{id}); err == nil {
				t.Errorf("id %d reads as %q", id, text)
			}
		}
	})
}

func TestEveryWorldIsJoinedAndStartsFree(t *testing.T) {
	for seed := range uint32(300) {
		e := mustEpisode(t, seed, 1, Mixed, 0)
		start := e.Poses[0]
		if e.World.Blocked(start.X, start.Y) {
			t.Errorf("seed %d: start %v is blocked", seed, start)
		}
		if New(seed).String() != e.World.String() {
			t.Errorf("seed %d: New makes another world than NewEpisode", seed)
		}
		if n := len(e.World.Landmarks()); n > maxLandmarks {
			t.Errorf("seed %d: %d landmarks", seed, n)
		}
	}
}

func TestNewEpisodeRefusesImpossibleRequests(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames int
		kind   Kind
		span   int
	}{
		{"no frames", 0, Mixed, 0},
		{"too many frames", MaxActions + 1, Mixed, 0},
		{"a kind that does not exist", 5, numKinds, 1},
		{"looking around for no span", 5, LookAround, 0},
		{"walking away for a negative span", 5, WalkAndUndo, -1},
		{"a span beyond counting", 5, LookAround, math.MaxInt},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := NewEpisode(1, c.frames, c.kind, c.span); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestEpisodes(t *testing.T) {
	t.Run("a longer episode begins with the shorter one", func(t *testing.T) {
		long, short := mustEpisode(t, 7, 300, Mixed, 0), mustEpisode(t, 7, 50, Mixed, 0)
		if !slices.Equal(long.Poses[:50], short.Poses) || !slices.Equal(long.Actions[:50], short.Actions) {
			t.Error("they differ")
		}
	})
	t.Run("poses follow from the actions", func(t *testing.T) {
		e := mustEpisode(t, 8, 300, Mixed, 0)
		for i := 1; i < len(e.Poses); i++ {
			if got := e.World.Step(e.Poses[i-1], e.Actions[i]); got != e.Poses[i] {
				t.Fatalf("frame %d: %v, want %v", i, got, e.Poses[i])
			}
		}
	})
	t.Run("automatic actions are those of the mixed player", func(t *testing.T) {
		e := mustEpisode(t, 9, 101, Mixed, 0)
		actions, err := AutoActions(9, 100)
		if err != nil || !slices.Equal(actions, e.Actions[1:]) {
			t.Errorf("%v, error %v", actions, err)
		}
		if _, err := AutoActions(9, MaxActions); err == nil {
			t.Error("no error for too many actions")
		}
		if _, err := AutoActions(9, -1); err == nil {
			t.Error("no error for a negative number of actions")
		}
	})
	t.Run("walking and undoing ends where it began", func(t *testing.T) {
		for seed := range uint32(20) {
			e := mustEpisode(t, seed, 81, WalkAndUndo, 40)
			dead := DeadReckon(e.Poses[0], e.Actions)
			if !dead[80].Near(e.Poses[0]) {
				t.Errorf("seed %d: %v, want near %v", seed, dead[80], e.Poses[0])
			}
		}
	})
}

func TestHeadingsFromActionsAreTheTrueOnes(t *testing.T) {
	e := mustEpisode(t, 11, 400, Mixed, 0)
	headings := TrackHeadings(e.Poses[0].Heading, e.Actions)
	dead := DeadReckon(e.Poses[0], e.Actions)
	for i, p := range e.Poses {
		if headings[i] != p.Heading || dead[i].Heading != p.Heading {
			t.Fatalf("frame %d: heading %d and %d, want %d", i, headings[i], dead[i].Heading, p.Heading)
		}
	}
	if got := TrackHeadings(-1, []Action{Noop, TurnRight, ForwardLeft}); !slices.Equal(got, []int{29, 0, 29}) {
		t.Errorf("headings wrap to %v", got)
	}
}

func TestDeadReckoningIsTheTruthUntilAWall(t *testing.T) {
	e := mustEpisode(t, 11, 400, Mixed, 0)
	dead := DeadReckon(e.Poses[0], e.Actions)
	i := 0
	for i < len(dead) && dead[i] == e.Poses[i] {
		i++
	}
	if i == 0 || i == len(dead) {
		t.Fatalf("first difference at frame %d", i)
	}
	if before := e.Poses[i-1]; !e.World.Blocked(dead[i].X, before.Y) && !e.World.Blocked(e.Poses[i].X, dead[i].Y) {
		t.Errorf("frame %d is %v, not %v, though nothing is there", i, e.Poses[i], dead[i])
	}
}

func TestRevisits(t *testing.T) {
	at := func(x, y float32, h int) Pose { return Pose{x, y, h} }
	history := []Pose{at(5, 5, 0), at(5, 5.25, 0), at(8, 8, 29)}
	for _, c := range []struct {
		name string
		pose Pose
		want int
	}{
		{"the same pose is a revisit", at(5, 5, 0), 0},
		{"the closest of two counts", at(5, 5.2, 0), 1},
		{"one step to the left still counts", at(5, 5, 29), 0},
		{"headings wrap", at(8, 8, 0), 2},
		{"two steps of turn do not count", at(8, 8, 1), -1},
		{"0.3 cells away does not count", at(8.3, 8, 29), -1},
		{"elsewhere is new", at(2, 2, 0), -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Revisits(append(slices.Clone(history), c.pose), len(history))
			if want := []int{-1, -1, -1, c.want}; !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	if got := Revisits(history, 99); !slices.Equal(got, []int{-1, -1, -1}) {
		t.Errorf("a history longer than the poses gives %v", got)
	}
}

func TestRender(t *testing.T) {
	e := mustEpisode(t, 12, 1, Mixed, 0)
	t.Run("does not allocate", func(t *testing.T) {
		dst := make([]byte, 3*16*16)
		least := math.Inf(1) // of many runs: the race detector makes sync.Pool forget at random
		for range 50 {
			least = min(least, testing.AllocsPerRun(1, func() { e.World.Render(dst, e.Poses[0], 16, 16) }))
		}
		if least > 0 {
			t.Errorf("%v allocations a frame", least)
		}
	})
	t.Run("survives poses outside the maze", func(t *testing.T) {
		dst := make([]byte, 3*5*7)
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for _, p := range []Pose{{-3, 5, 0}, {1e30, -1e30, 99}, {nan, nan, -1}, {inf, -inf, math.MinInt}, {0, 0, 7}, {16, 16, 7}} {
			e.World.Render(dst, p, 5, 7)
			e.World.Step(p, Forward)
		}
	})
	t.Run("panics at a wrong size", func(t *testing.T) {
		defer func() {
			if r := recover(); r == nil {
				t.Error("no panic")
			}
		}()
		e.World.Render(make([]byte, 10), e.Poses[0], 2, 2)
	})
}
