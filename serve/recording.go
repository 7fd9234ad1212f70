package serve

import (
	"fmt"
	"io"
	"sync"
	"time"

	"longtake/api"
	"longtake/video"
	"longtake/video/webm"
)

// recording writes frames of a session to a WebM file, encoded in a goroutine of its own. It takes frames from a queue that
// drops what does not fit, and counts it: recording never slows the session.
type recording struct {
	id, session string
	frames      chan stamped
	done        chan struct{}
	once        sync.Once

	mu    sync.Mutex
	state api.Recording
}

// recordQueue is how many frames the encoder may be behind.
const recordQueue = 32

// record begins a recording of a session.
func (s *Store) record(from *Session) (*recording, error) {
	id := newID("rec")
	f, err := s.create("recordings", id, ".webm")
	if err != nil {
		return nil, err
	}
	a, _ := from.describe()
	r := newRecording(id, from.id, f, video.Options{Width: a.Width, Height: a.Height, Scale: enlarge(a.Width, a.Height)})
	s.keep(r)
	return r, nil
}

// enlarge returns how often the pixels of small frames are repeated for players.
func enlarge(width, height int) int { return max(1, (255+min(width, height))/min(width, height)) }

func newRecording(id, session string, out io.WriteCloser, o video.Options) *recording {
	r := &recording{id: id, session: session, frames: make(chan stamped, recordQueue), done: make(chan struct{})}
	r.state = api.Recording{ID: id, Object: "recording", Session: session, Status: "recording"}
	go r.run(out, o)
	return r
}

// stamped is a frame and when it was shown.
type stamped struct {
	video.Frame
	at time.Time
}

// offer hands a frame over, or counts it as dropped.
func (r *recording) offer(f video.Frame) {
	if r == nil {
		return
	}
	select {
	case r.frames <- stamped{f, time.Now()}:
	default:
		r.update(func(a *api.Recording) { a.Dropped++ })
	}
}

// finish ends the recording and waits for the file. No frame may be offered after it.
func (r *recording) finish() {
	if r == nil {
		return
	}
	r.once.Do(func() { close(r.frames) })
	<-r.done
}

func (r *recording) update(f func(*api.Recording)) {
	r.mu.Lock()
	f(&r.state)
	r.mu.Unlock()
}

func (r *recording) describe() api.Recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// run encodes. Frames keep the moments at which they came, so that pauses are seen as such.
func (r *recording) run(out io.WriteCloser, o video.Options) {
	defer close(r.done)
	count := &counter{out: out}
	w := newClusters(count, o.Width*o.Scale, o.Height*o.Scale)
	coder := webm.NewVP8(0)
	var began time.Time
	var big []byte
	err := w.head()
	for f := range r.frames {
		if err != nil {
			continue // the queue is emptied until finish
		}
		if began.IsZero() {
			began = f.at
		}
		large := f.Upscale(o.Scale, big)
		if o.Scale > 1 { // otherwise these are the session's own pixels
			big = large.Pix
		}
		var data []byte
		if data, err = coder.EncodeKeyFrame(large); err == nil {
			err = w.frame(f.at.Sub(began), data)
		}
		if err != nil {
			r.fail(err)
			continue
		}
		r.update(func(a *api.Recording) { a.Frames++; a.Bytes = count.n })
	}
	if err == nil {
		err = w.flush()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.update(func(a *api.Recording) { a.Status = "completed"; a.Bytes = count.n })
}

func (r *recording) fail(err error) {
	r.update(func(a *api.Recording) { a.Status, a.Error = "failed", withoutPaths(err) })
}

// counter counts bytes.
type counter struct {
	out io.Writer
	n   int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.n += int64(n)
	if err != nil {
		err = fmt.Errorf("write recording: %w", err)
	}
	return n, err
}
