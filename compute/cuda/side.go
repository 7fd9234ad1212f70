package cuda

// side is a second stream of a queue, for what an operation splits in two. It is made when first needed.
type side struct {
	stream     uintptr
	begin, end uintptr // events
	open       bool
}

// forks reports whether a side stream would be of use: not where launches are written down or timed one by one.
func (q *queue) forks() bool { return !q.recording && !q.batch.open && q.profile == nil }

// fork lets the side stream go on from here, until join.
func (q *queue) fork() {
	q.flush()
	if q.err != nil {
		return
	}
	s := &q.side
	var err error
	if s.stream == 0 {
		s.stream, err = q.drv.NewStream()
	}
	for _, e := range []*uintptr{&s.begin, &s.end} {
		if err == nil && *e == 0 {
			*e, err = q.drv.NewEvent(false)
		}
	}
	if err == nil {
		err = q.drv.Record(s.begin, q.stream)
	}
	if err == nil {
		err = q.drv.WaitEvent(s.stream, s.begin)
	}
	s.open = err == nil
	q.fail("second stream", err)
}

// aside launches what f does on the side stream.
func (q *queue) aside(f func()) {
	main := q.stream
	q.stream = q.side.stream
	f()
	q.stream = main
}

// join lets the queue wait for the side stream.
func (q *queue) join() {
	s := &q.side
	if !s.open {
		return
	}
	s.open = false
	if q.err != nil {
		return
	}
	err := q.drv.Record(s.end, s.stream)
	if err == nil {
		err = q.drv.WaitEvent(q.stream, s.end)
	}
	q.fail("second stream", err)
}

// close gives the side stream back, after what it does.
func (s *side) close(drv driver) {
	if s.stream == 0 {
		return
	}
	drv.Sync(s.stream)
	for _, e := range []uintptr{s.begin, s.end} {
		if e != 0 {
			drv.FreeEvent(e)
		}
	}
	drv.FreeStream(s.stream)
	*s = side{}
}
