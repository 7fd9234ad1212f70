package compare_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"longtake/accel/tempcache"
	"longtake/compare"
	"longtake/compute"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/model/modeltest"
	"longtake/rollout"
)

func TestALongRolloutIsMeasuredAtItsFrames(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e)
	merging := tempcache.Default()
	merging.Budget.Frames = 6
	endless := full
	endless.Unbounded = true
	r, err := compare.Rollout(t.Context(), compare.RolloutOptions{Engine: e, Request: o.Request, Actions: o.Actions, Frames: 16,
		Entries: []compare.Entry{endless, narrow, entry("merged", merging)}, Frontiers: []int{8}, Span: 4, Exact: true})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, r)
	for _, run := range r.Runs {
		if len(run.Frontiers) != 2 || run.Why != "" || run.FirstFrame <= 0 || run.Predicted <= e.WeightBytes() {
			t.Errorf("%s: %+v", run.Policy.Name, run)
			continue
		}
		for i, m := range run.Frontiers {
			if m.Frame != 8*(i+1) || m.FPS <= 0 || m.P50 <= 0 || m.P95 < m.P50 || m.Denoise <= 0 || m.Commit <= 0 || m.Attend <= 0 || m.AttendCross <= 0 || m.DeviceBytes <= 0 {
				t.Errorf("%s: %+v", run.Policy.Name, m)
			}
			if exact := run.Policy.Name == "full"; exact != (m.Error < 5e-3 && m.Mass > 0.999) || !(m.Error > 0) || !(m.Mass > 0.3 && m.Mass <= 1.001) {
				t.Errorf("%s at %d is off by %v, with %v of the mass", run.Policy.Name, m.Frame, m.Error, m.Mass)
			}
			if held := m.Held; run.Policy.Name == "full" && held != 1 || run.Policy.Name == "narrow" && held > 0.26 {
				t.Errorf("%s at %d holds %v of the past", run.Policy.Name, m.Frame, held)
			}
		}
		if !slices.IsSorted(run.ChunkFrames) || len(run.ChunkFrames) != len(run.ChunkSeconds) {
			t.Errorf("%s: chunks end at %v", run.Policy.Name, run.ChunkFrames)
		}
	}
	a, b := r.Runs[2].Frontiers[0], r.Runs[2].Frontiers[1]
	if a.CacheBytes != b.CacheBytes || !(b.Merged > 0) {
		t.Errorf("a bounded cache went from %d to %d bytes and merged %v", a.CacheBytes, b.CacheBytes, b.Merged)
	}
	var text bytes.Buffer
	if err := r.Table(&text); err != nil || strings.Count(text.String(), "\n") != 11 {
		t.Errorf("%v: %s", err, text.String())
	}
}

// cramped is a device that has little memory left.
type cramped struct {
	compute.Device
	free int64
}

func (c cramped) Memory() compute.Memory { return compute.Memory{Total: c.free, Free: c.free} }

func TestARolloutThatKeepsEverythingSaysWhereMemoryEnds(t *testing.T) {
	e := modeltest.TinyWorld(t, cpu.Options{})
	o := options(t, e)
	ten, err := e.SessionBytes(rollout.Request{Prompt: o.Request.Prompt, Steps: 1, Cache: kvcache.Window{Recent: 9}})
	if err != nil {
		t.Fatal(err)
	}
	e.Device = cramped{e.Device, ten + 1<<30 + 1}
	r, err := compare.Rollout(t.Context(), compare.RolloutOptions{Engine: e, Request: o.Request, Actions: o.Actions, Frames: 40,
		Entries: []compare.Entry{full}, Frontiers: []int{6, 30}, Span: 2, Fill: true})
	if err != nil {
		t.Fatal(err)
	}
	run := r.Runs[0]
	if run.Stopped != 10 || !strings.Contains(run.Why, "10 latent frames") || len(run.Frontiers) != 1 || !run.Filled || len(run.ChunkFrames) != 2 {
		t.Errorf("%+v", run)
	}
	if m := run.Frontiers[0]; math.Abs(m.FPS*m.Mean-1) > 1e-6 {
		t.Errorf("chunks of a frame take %v s at %v frames/s", m.Mean, m.FPS)
	}
	if _, err := compare.Rollout(t.Context(), compare.RolloutOptions{Engine: e, Request: o.Request, Frames: 1}); !errors.Is(err, rollout.ErrRequest) {
		t.Errorf("no entries: %v", err)
	}
}
