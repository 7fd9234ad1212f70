package webm

import (
	"fmt"

	"longtake/video"
)

// ring has frames encoded at the same time, by an encoder each, and gives them back in order. It
// belongs to one goroutine.
type ring struct {
	slots       []slot
	first, used int // oldest slot in use, and how many are
}

// slot is an encoder and the frame that it works on.
type slot struct {
	encoder KeyFrameEncoder
	frame   video.Frame
	data    []byte
	err     error
	done    chan struct{} // receives when data and err are there
}

func newRing(encoders []KeyFrameEncoder) ring {
	r := ring{slots: make([]slot, len(encoders))}
	for i, e := range encoders {
		r.slots[i].encoder, r.slots[i].done = e, make(chan struct{}, 1)
	}
	return r
}

func (r *ring) full() bool { return r.used == len(r.slots) }
func (r *ring) busy() bool { return r.used > 0 }

// start has a copy of a frame encoded; a slot must be free.
func (r *ring) start(f video.Frame) {
	s := &r.slots[(r.first+r.used)%len(r.slots)]
	r.used++
	f.Pix = append(s.frame.Pix[:0], f.Pix...)
	s.frame = f
	if len(r.slots) == 1 {
		s.encode()
		return
	}
	go s.encode()
}

func (s *slot) encode() {
	defer func() {
		if fault := recover(); fault != nil {
			s.err = fmt.Errorf("internal fault: %v", fault)
		}
		s.done <- struct{}{}
	}()
	s.data, s.err = s.encoder.EncodeKeyFrame(s.frame)
}

// finish waits for the oldest frame. Its data are valid until the next start.
func (r *ring) finish() ([]byte, error) {
	s := &r.slots[r.first]
	r.first, r.used = (r.first+1)%len(r.slots), r.used-1
	<-s.done
	if s.err != nil {
		return nil, fmt.Errorf("encode frame %d: %w", s.frame.Index, s.err)
	}
	return s.data, nil
}
