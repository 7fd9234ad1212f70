package pose_test

import (
	"testing"

	"longtake/accel/pose"
	"longtake/compute/computetest"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

// small is a memory of so many frames for a shape of the suite.
func small(s kvcache.Shape, window, slots int) pose.Policy {
	p := pose.Default
	p.Window, p.Move = window, 2
	p.Budget = int64(slots) * 2 * int64(s.Layers*s.Heads*s.Tokens()*s.HeadDim) * 4
	return p
}

// Where no place is seen twice, pose memory is a window. Its store is full long before the suite ends.
func TestPoseMemoryKeepsTheLaws(t *testing.T) {
	dev, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for i, s := range kvcachetest.Shapes {
		e := kvcachetest.Exam{Policy: small(s, 5, 16), Recent: 5, Fixed: true, Shape: s}
		kvcachetest.Run(t, dev, e)
		if i == 0 {
			kvcachetest.Run(t, computetest.Reference(), e)
		}
	}
}
