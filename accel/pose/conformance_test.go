package pose_test

import (
	"testing"

	"longtake/accel/pose"
	"longtake/compute"
	"longtake/compute/computetest"
	"longtake/compute/cpu"
	"longtake/kvcache"
	"longtake/kvcache/kvcachetest"
)

// small is a memory of so many frames for a shape of the suite, with the least of keys.
func small(s kvcache.Shape, window, frames int) pose.Policy {
	p := pose.Default
	p.Window, p.Move = window, 2
	s.DType = compute.F32
	p.Budget = p.Room(s, frames)
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
		// Places come again after 11 frames: old ones are recalled, with the dates that they have.
		again := small(s, 5, 16)
		again.MoveMin = 2
		e.Policy = again
		e.Poses = func(frame int) kvcache.Pose { return kvcache.Pose{X: 10 * float64(frame%11)} }
		kvcachetest.Run(t, dev, e)
		if i == 0 {
			kvcachetest.Run(t, computetest.Reference(), e)
		}
	}
}
