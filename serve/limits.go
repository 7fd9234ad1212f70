package serve

import (
	"context"
	"math"
	"net"
	"sync"
	"time"

	"longtake/api"
)

// Limits bound what callers may take. The zero value of a field is its default.
type Limits struct {
	Body      int64         // bytes of a JSON body; 10 MiB
	Control   int64         // bytes of a WebSocket message; 64 KiB
	Header    int           // bytes of a request's header; 16 KiB
	SlowHead  time.Duration // until a request's header must be there; 10 s
	SlowBody  time.Duration // until a body must be there; 30 s
	SlowWrite time.Duration // until an answer or a frame must be taken; 10 s
	Idle      time.Duration // of a session without viewers and calls; 5 minutes
	Life      time.Duration // of a session; 24 hours
	Controls  float64       // control messages a second of a viewer; 240
	Requests  float64       // requests a second of a token, or of everybody without one; 50
	Burst     float64       // requests at once; 200
	Owned     int           // sessions of a token; 16
	Viewers   int           // of a session; 64
	Conns     int           // connections; 2048
	Videos    int           // jobs that wait; 16
	VideoSize int           // frames of a video; 2048
}

// withDefaults fills in zero fields.
func (l Limits) withDefaults() Limits {
	set(&l.Body, 10<<20)
	set(&l.Control, api.MaxControlBytes)
	set(&l.Header, 16<<10)
	set(&l.SlowHead, 10*time.Second)
	set(&l.SlowBody, 30*time.Second)
	set(&l.SlowWrite, 10*time.Second)
	set(&l.Idle, 5*time.Minute)
	set(&l.Life, 24*time.Hour)
	set(&l.Controls, 240)
	set(&l.Requests, 50)
	set(&l.Burst, 200)
	set(&l.Owned, 16)
	set(&l.Viewers, 64)
	set(&l.Conns, 2048)
	set(&l.Videos, 16)
	set(&l.VideoSize, 2048)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// bucket lets a rate through, with bursts. It is safe for concurrent use.
type bucket struct {
	mu          sync.Mutex
	rate, burst float64
	level       float64
	at          time.Time
}

func newBucket(rate, burst float64) *bucket {
	return &bucket{rate: rate, burst: burst, level: burst, at: time.Now()}
}

// take returns 0 and takes one, or returns how long to wait for one.
func (b *bucket) take() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.level = math.Min(b.burst, b.level+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
	if b.level >= 1 {
		b.level--
		return 0
	}
	return time.Duration((1 - b.level) / b.rate * float64(time.Second))
}

// wait takes one when there is one.
func (b *bucket) wait(ctx context.Context) error {
	for {
		d := b.take()
		if d == 0 {
			return nil
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// limitedListener accepts so many connections at a time; further ones wait in the system's queue.
type limitedListener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

// LimitListener bounds the connections of a listener.
func LimitListener(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a place and a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: c, places: l.places}, nil
}

// Close ends Accept.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	places chan struct{}
	once   sync.Once
}

// Close gives the place back.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places })
	return err
}
