package cuda

import (
	"testing"

	"longtake/compute"
)

func TestFramesMergeOnTwoStreamsUntilTheLast(t *testing.T) {
	d, f := fakeDevice(t)
	opened, err := d.NewQueue()
	if err != nil {
		t.Fatal(err)
	}
	q := opened.(*queue)
	a, _ := d.NewArena(0)
	const layers, heads, tokens, slots, headDim = 3, 2, 8, 16, 32
	var stores []compute.MergeStore
	for range layers {
		stores = append(stores, compute.MergeStore{Keys: a.Tensor(compute.BF16, heads, tokens+slots, headDim), Entries: a.Tensor(compute.I32, heads),
			Raw: a.Tensor(compute.F32, heads, tokens+slots, headDim)})
	}
	m := compute.Merging{Tokens: tokens, Columns: 4, Dense: tokens, HeadDim: headDim, Frequencies: a.Tensor(compute.F64, 4), Neighbours: true, Radius: 1, Depth: 2,
		Probe: a.Tensor(compute.F32, layers, heads, tokens, headDim), Best: a.Tensor(compute.I32, layers, heads, tokens), Hits: a.Tensor(compute.I32, layers, 4, heads, tokens),
		Order: a.Tensor(compute.I32, layers, heads, 4*slots+5*tokens), Recent: a.Tensor(compute.I32, layers, heads, tokens, 2)}
	streams := f.streams
	for i, c := range []struct {
		more            bool
		launches, waits int
		first           uint32 // layer of the last launch
	}{{false, 6, 0, 0}, {true, 12, 1, 2}, {true, 12, 0, 2}, {false, 12, 1, 2}, {false, 6, 0, 0}} {
		f.launches, f.calls = nil, nil
		m.Frame, m.More = i, c.more
		q.Merge(m, stores)
		waits := 0
		for _, call := range f.calls {
			if call == "WaitEvent" {
				waits++
			}
		}
		aside := f.last.stream != q.stream
		if q.Err() != nil || len(f.launches) != c.launches || waits != c.waits || aside != (c.launches == 12) || q.side.open != c.more || q.mergeArgs.first != c.first {
			t.Errorf("frame %d: %v; %d launches, %d waits, aside %v, open %v, last from layer %d; want %+v", i, q.Err(), len(f.launches), waits, aside, q.side.open, q.mergeArgs.first, c)
		}
	}
	if f.streams != streams+1 {
		t.Errorf("%d streams more, want one", f.streams-streams)
	}
	q.Close()
	if f.streams != streams-1 {
		t.Errorf("%d streams left, %d before the queue's", f.streams, streams-1)
	}
}
