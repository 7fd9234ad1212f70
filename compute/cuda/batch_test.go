package cuda

import (
	"errors"
	"slices"
	"testing"

	"longtake/compute"
)

func TestBatchesAreReplayedWhenTheyComeAgain(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	x, y := a.Tensor(compute.F32, 8, 32), a.Tensor(compute.F32, 8, 32)
	w := a.Matrix(compute.Host{DType: compute.BF16, Shape: []int{32, 32}, Data: make([]byte, 2048)})
	h := a.Tensor(compute.BF16, 8, 32)
	forward := func(scale float32) {
		q.BeginBatch()
		for range 4 {
			q.Mix(y, scale, x, 0, compute.Tensor{})
			q.Copy(h, y)
			q.Linear(h, h, w, compute.Tensor{}, compute.None)
		}
		q.Copy(x, y)
		q.EndBatch()
	}
	for i, c := range []struct {
		scale    float32
		launches int // kernels and products started or captured
		calls    []string
	}{
		{1, 12, []string{"CopyOn", "LaunchGraph"}},                // new: captured
		{1, 12, []string{"CopyOn", "LaunchGraph"}},                // again: a graph of its own
		{1, 0, []string{"LaunchGraph"}},                           // kept
		{2, 12, []string{"CopyOn", "UpdateGraph", "LaunchGraph"}}, // other arguments into the first graph
		{1, 0, []string{"LaunchGraph"}},
	} {
		f.launches, f.calls = nil, nil
		forward(c.scale)
		if len(f.launches) != c.launches || !slices.Equal(f.calls, c.calls) || q.Err() != nil {
			t.Errorf("batch %d: %d launches, %v; want %d, %v; %v", i, len(f.launches), f.calls, c.launches, c.calls, q.Err())
		}
	}
	if n := testing.AllocsPerRun(10, func() { forward(1) }); n > 0 {
		t.Errorf("a batch that comes again allocates %v times", n)
	}
	f.launches, f.calls = nil, nil
	q.BeginBatch()
	q.Mix(y, 1, x, 0, compute.Tensor{})
	q.Upload(x, make([]byte, 1024))
	if !slices.Equal(f.launches, []string{"map_ff"}) {
		t.Errorf("before an upload: %v", f.launches)
	}
	q.Mix(y, 1, x, 0, compute.Tensor{})
	q.EndBatch()
	q.Mix(y, 1, x, 0, compute.Tensor{})
	if len(f.launches) != 3 || len(f.calls) != 0 {
		t.Errorf("short batches: %v, %v", f.launches, f.calls)
	}
	q.Close()
	if f.graphs != 0 {
		t.Errorf("%d graphs are left", f.graphs)
	}
}

func TestKeptGraphsAreBoundedAndFailuresStick(t *testing.T) {
	d, f := fakeDevice(t)
	opened, _ := d.NewQueue()
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	x := a.Tensor(compute.F32, 8)
	forward := func(scale float32) {
		q.BeginBatch()
		defer q.EndBatch()
		for range mostSteps / 4 {
			q.Mix(x, scale, x, 0, compute.Tensor{})
		}
	}
	for i := range 12 {
		forward(float32(i / 2))
	}
	if q.batch.steps > mostSteps || len(q.batch.graphs) != 4 || f.graphs != 5 {
		t.Errorf("%d steps in %d graphs, %d in all", q.batch.steps, len(q.batch.graphs), f.graphs)
	}
	broken := errors.New("broken")
	f.failNext["Launch"] = broken
	forward(100)
	if !errors.Is(q.Err(), broken) {
		t.Errorf("a failed launch: %v", q.Err())
	}
	forward(101)
	q.Close()
	if f.graphs != 0 {
		t.Errorf("%d graphs are left", f.graphs)
	}
}
