package serve

import (
	"context"
	"errors"
	"sync"

	"longtake/api"
)

// viewer is who watches a session. Frames lie in a mailbox with one place for each view: a new one replaces one that was not
// fetched. Notices are kept in order, up to a bound.
type viewer struct {
	wake chan struct{} // has a token when there is something to fetch

	mu      sync.Mutex
	frames  [2]*picture
	echo    float64 // of a frame that obeyed this viewer, until a frame was fetched
	dropped int
	notices []api.Notice
	over    bool // no more comes
	lost    bool // notices overflowed
	maps    [2]*api.Map
	wants   bool // maps
}

// maxNotices is how many receipts a viewer may leave unread.
const maxNotices = 256

var errSlow = errors.New("viewer does not read")

func newViewer() *viewer { return &viewer{wake: make(chan struct{}, 1)} }

func (v *viewer) nudge() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// offer puts a frame into the mailbox. It never waits.
func (v *viewer) offer(p *picture) {
	v.mu.Lock()
	if v.frames[p.header.View&1] != nil {
		v.dropped++
	}
	v.frames[p.header.View&1] = p
	if p.from == v && p.echo != 0 {
		v.echo = p.echo
	}
	v.mu.Unlock()
	v.nudge()
}

// want turns the map on or off.
func (v *viewer) want(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wants = on
}

// chart puts a map into the mailbox if it is wanted. It never waits.
func (v *viewer) chart(m *api.Map) {
	v.mu.Lock()
	wanted := v.wants
	if wanted {
		v.maps[m.View&1] = m
	}
	v.mu.Unlock()
	if wanted {
		v.nudge()
	}
}

// mapped reports whether the viewer wants maps.
func (v *viewer) mapped() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wants
}

// tell adds a notice. It never waits.
func (v *viewer) tell(n api.Notice) {
	v.mu.Lock()
	if len(v.notices) < maxNotices {
		v.notices = append(v.notices, n)
	} else {
		v.lost = true
	}
	v.mu.Unlock()
	v.nudge()
}

// close lets fetch return everything that is left, and then false.
func (v *viewer) close() {
	v.mu.Lock()
	v.over = true
	v.mu.Unlock()
	v.nudge()
}

// parcel is what fetch brings.
type parcel struct {
	notices []api.Notice
	frames  [2]*picture
	echo    float64
	dropped int
	maps    [2]*api.Map
}

// fetch waits for something new. It returns false after the end, and errSlow if notices were lost.
func (v *viewer) fetch(ctx context.Context) (p parcel, more bool, err error) {
	for {
		v.mu.Lock()
		p = parcel{v.notices, v.frames, v.echo, v.dropped, v.maps}
		v.notices, v.frames, v.maps = nil, [2]*picture{}, [2]*api.Map{}
		if p.frames[0] != nil {
			v.echo = 0
		}
		over, lost := v.over, v.lost
		v.mu.Unlock()
		switch {
		case lost:
			return p, false, errSlow
		case len(p.notices) > 0 || p.frames[0] != nil || p.frames[1] != nil || p.maps[0] != nil || p.maps[1] != nil:
			return p, true, nil
		case over:
			return p, false, nil
		}
		select {
		case <-v.wake:
		case <-ctx.Done():
			return p, false, ctx.Err()
		}
	}
}
