package main

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longtake/compare"
	"longtake/compute"
	"longtake/weights"
)

func TestBenchRolloutMeasuresTheEmbeddedModel(t *testing.T) {
	page := filepath.Join(t.TempDir(), "a.html")
	args := []string{"bench", "rollout", "--frames", "12", "--steps", "1", "--device", "cpu", "--frontiers", "6", "--span", "3", "--quiet"}
	r := parse[compare.RolloutReport](t, succeed(t, append(args, "--policies", "full; tempcache:budget=6f; full:self=annsa,self-from=0,self-least=0,self-recent=0 as sparse",
		"--json", "-o", page)...).out)
	if len(r.Runs) != 3 || r.Setup.Model == "" || r.Precision == "" {
		t.Fatalf("%+v", r)
	}
	for _, run := range r.Runs {
		if len(run.Frontiers) != 2 {
			t.Errorf("%s: measured at %+v", run.Policy.Name, run.Frontiers)
		}
	}
	if m := r.Runs[2].Frontiers[0]; !(m.Density < 1 && m.Recall < 1 && m.Recall > m.Density) || r.Runs[0].Frontiers[0].Recall != 1 {
		t.Errorf("sparse: density %v, recall %v", m.Density, m.Recall)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "Frames per second") {
		t.Errorf("page: %v", err)
	}
	if said := succeed(t, append(args, "--policies", "window")...).out; !strings.Contains(said, "history: what the network makes") {
		t.Errorf("said %s", said)
	}
}

// clipFile writes latents [2, 16, 4, 6], a slope in each channel.
func clipFile(t *testing.T) string {
	t.Helper()
	var b []byte
	for i := range 2 * 16 * 4 * 6 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i%24)/12-1))
	}
	path := filepath.Join(t.TempDir(), "clip.safetensors")
	if err := weights.WriteFile(path, map[string]compute.Host{"latents": {DType: compute.F32, Shape: []int{2, 16, 4, 6}, Data: b}}, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchRolloutPutsAClipInPlaceOfWhatANetworkMakes(t *testing.T) {
	dir, clip := tinySet(t, "self-forcing", nil), clipFile(t)
	args := []string{"bench", "rollout", "--model", dir, "--prompt", "a cat", "--vae", "tiny", "--size", "48x32", "--frames", "93", "--frontiers", "33",
		"--span", "12", "--device", "cpu", "--quiet", "--json", "--policies", "tempcache:budget=8f,search=neighbours; full"}
	own := parse[compare.RolloutReport](t, succeed(t, args...).out)
	moved := parse[compare.RolloutReport](t, succeed(t, append(args, "--latents", clip, "--fill")...).out)
	if !strings.Contains(moved.Data, "clip") || strings.Contains(own.Data, "clip") || !moved.Runs[1].Filled {
		t.Errorf("%q, %q", own.Data, moved.Data)
	}
	if a, b := own.Runs[0].Frontiers[0], moved.Runs[0].Frontiers[0]; !(b.Merged > 0) || a.Merged == b.Merged {
		t.Errorf("of what the network makes %v merged, of the clip %v", a.Merged, b.Merged)
	}
	for _, bad := range [][2]string{{clip + "x", "no such file"}, {dir + "/taew2_1.pth", "latents"}} {
		if r := longtake(t, append(args, "--latents", bad[0])...); r.code != exitUsage || !strings.Contains(r.err, bad[1]) {
			t.Errorf("--latents %s: exit code %d, %s", bad[0], r.code, r.err)
		}
	}
}

// TestForwardComparesPredictionsWithThoseOfAnotherRun: of the same kernels there is no difference, of others a small one.
func TestForwardComparesPredictionsWithThoseOfAnotherRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.f32")
	args := []string{"forward", "--model", tinySet(t, "self-forcing", nil), "--size", "48x64", "--vae", "tiny", "--device", "cpu", "--cached", "3,6", "--runs", "1", "--quiet"}
	succeed(t, append(args, "--save", file)...)
	if out := succeed(t, append(args, "--against", file)...).out; strings.Count(out, "\t0.00000 off\n") != 2 {
		t.Errorf("the same again: %s", out)
	}
	os.Truncate(file, 100)
	if r := longtake(t, append(args, "--against", file)...); r.code != exitUsage || !strings.Contains(r.err, "fewer predictions") {
		t.Errorf("a short file gave %d, %s", r.code, r.err)
	}
	if r := longtake(t, append(args, "--against", filepath.Join(dir, "none"))...); r.code != exitUsage {
		t.Errorf("no file gave %d, %s", r.code, r.err)
	}
}
