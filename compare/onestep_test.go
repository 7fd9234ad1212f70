package compare_test

import (
	"testing"

	"longtake/compare"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
)

// TestSingleStepsOnEveryHistory: who forgets nothing makes the first policy's frames on any history, who forgets all but one frame does not.
func TestSingleStepsOnEveryHistory(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	histories := map[string]float64{}
	for _, measure := range []string{compare.OneStep, compare.OneStepOwn, compare.OneStepTrue} {
		test, err := compare.Play(t.Context(), compare.PlayOptions{Engine: e, Measure: measure, Frames: 13, Given: 1, Clips: 1, Seed: 3000, Steps: 1,
			Entries: []compare.Entry{full, entry("same", kvcache.Window{Recent: 100}), narrow}})
		if err != nil {
			t.Fatal(err)
		}
		if len(test.Rows[0].Findings) != 0 {
			t.Errorf("%s: the first policy is compared with itself: %v", measure, test.Rows[0].Findings)
		}
		for row, want := range map[int]float64{1: 100, 2: 60} {
			for _, f := range test.Rows[row].Findings {
				if v := float64(f.Mean); f.N != 1 || row == 1 && v != want || row == 2 && !(v < want) {
					t.Errorf("%s, %s: %s: %v of %d clips, want %v", measure, test.Rows[row].Policy.Name, f.Name, v, f.N, want)
				}
			}
			if n := len(test.Rows[row].Findings); n != 3 {
				t.Errorf("%s: %d findings, want the frame itself, and mean and worst of those before it", measure, n)
			}
		}
		histories[measure] = float64(test.Rows[2].Findings[0].Mean)
	}
	if a, b, c := histories[compare.OneStep], histories[compare.OneStepOwn], histories[compare.OneStepTrue]; a == b || b == c || a == c {
		t.Errorf("different histories give the same numbers: %v", histories)
	}
}
