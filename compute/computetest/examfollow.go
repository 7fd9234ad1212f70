package computetest

import (
	"bytes"

	"longtake/compute"
)

// examFollow: a queue that follows another one sees what that was asked for before, however long it takes, and the other way
// round what was read is not overwritten too early.
func examFollow(s *suite) {
	s.begin("follow")
	other, err := s.dev.NewQueue()
	if err != nil {
		s.fail("another queue: %v", err)
		return
	}
	defer other.Close()
	const rows, width = 2048, 1024 // long enough that a missing order shows
	x, y := s.room(compute.F32, dense, rows, width), s.room(compute.F32, dense, rows, width)
	for round := range uint32(4) {
		s.dq.Noise(x.view, compute.NoiseKey{Seed: 9, Step: round})
		compute.Follow(other, s.dq)
		other.Copy(y.view, x.view)
		compute.Follow(s.dq, other)
		s.dq.Noise(x.view, compute.NoiseKey{Seed: 10, Step: round})
		got, want := make([]byte, y.view.Bytes()), make([]byte, y.view.Bytes())
		other.Download(got, y.view)
		s.dq.Noise(x.view, compute.NoiseKey{Seed: 9, Step: round})
		s.dq.Download(want, x.view)
		if err := other.Wait(); err != nil || !bytes.Equal(got, want) {
			s.fail("round %d: the copy is not what was there when it was asked for (%v)", round, err)
			return
		}
	}
}
