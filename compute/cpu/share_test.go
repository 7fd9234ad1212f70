package cpu_test

import (
	"sync/atomic"
	"testing"

	"longtake/compute"
	"longtake/compute/cpu"
)

func TestSharedWorkIsDoneOnceEach(t *testing.T) {
	for _, threads := range []int{1, 3} {
		dev, err := cpu.New(cpu.Options{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		dq, err := dev.NewQueue()
		if err != nil {
			t.Fatal(err)
		}
		defer dq.Close()
		var done [50]atomic.Int32
		for range 20 {
			compute.Share(dq, len(done), func(i int) { done[i].Add(1) })
		}
		for i := range done {
			if n := done[i].Load(); n != 20 {
				t.Errorf("%d threads: number %d done %d times of 20", threads, i, n)
			}
		}
	}
}
