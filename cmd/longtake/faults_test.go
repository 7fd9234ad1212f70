package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"longtake/api"
	"longtake/compute"
	"longtake/serve"
)

// scarce is a device whose k-th arena cannot be had, and which counts those that are held.
type scarce struct {
	compute.Device
	left, held, failed atomic.Int64
}

// NewArena implements compute.Device.
func (d *scarce) NewArena(bytes int64) (compute.Arena, error) {
	if d.left.Add(-1) == 0 {
		d.failed.Add(1)
		return nil, fmt.Errorf("arena of %d bytes in /secret/place: %w", bytes, compute.ErrNoMemory)
	}
	a, err := d.Device.NewArena(bytes)
	if err != nil {
		return nil, err
	}
	d.held.Add(1)
	return &counted{Arena: a, of: d}, nil
}

type counted struct {
	compute.Arena
	of    *scarce
	freed bool
}

// Free implements compute.Arena.
func (a *counted) Free() {
	if !a.freed {
		a.freed = true
		a.of.held.Add(-1)
	}
	a.Arena.Free()
}

// TestAnyAllocationOfTheEngineMayFail fails every allocation of a comparison's life in turn: the session ends or the order is
// refused, everything is given back, and the next session is as good as ever.
func TestAnyAllocationOfTheEngineMayFail(t *testing.T) {
	h, c := hosted(t, serve.Options{})
	d := &scarce{Device: h.lab.engine.Device}
	h.lab.engine.Device = d
	digest := ""
	live := func() (sum string, err error) {
		x, err := c.CreateSession(t.Context(), api.SessionRequest{Mode: api.Step, Seed: 2, Compare: "fast"})
		if err != nil {
			return "", err
		}
		defer c.DeleteSession(t.Context(), x.ID)
		if _, err = c.Step(t.Context(), x.ID, api.StepRequest{ActionIDs: []int{1}, Format: "none"}); err != nil {
			return "", err
		}
		if _, err = c.Control(t.Context(), x.ID, api.Control{Type: "policy", Policy: "pose"}); err != nil {
			return "", err
		}
		r, err := c.Step(t.Context(), x.ID, api.StepRequest{ActionIDs: []int{2}, Format: "none"})
		return r.Digest, err
	}
	other := 0
	for k := int64(1); ; k++ {
		d.left.Store(k)
		d.failed.Store(0)
		sum, err := live()
		for until := time.Now().Add(10 * time.Second); d.held.Load() != 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("allocation %d failed: %d arenas are held", k, d.held.Load())
			}
		}
		if list, err := c.Sessions(t.Context()); err != nil || len(list.Data) != 0 {
			t.Fatalf("allocation %d failed: sessions %v, %v", k, list.Data, err)
		}
		if a, err := http.Get(c.URL + "/readyz"); err != nil || a.StatusCode != 200 {
			t.Fatalf("allocation %d failed: not ready, %v", k, err)
		} else {
			a.Body.Close()
		}
		if d.failed.Load() == 0 {
			if err != nil || k < 6 || other == 0 {
				t.Fatalf("after %d allocations, %d of them refused orders: %v", k, other, err)
			}
			digest = sum
			break
		}
		if err == nil && sum != "" {
			other++ // the order was refused, the session went on as it was
		}
	}
	d.left.Store(0)
	if again, err := live(); err != nil || again != digest {
		t.Errorf("after the failures: %s, not %s: %v", again, digest, err)
	}
	t.Logf("%d of the failures were refused orders", other)
}
