package serve

import (
	"io"
	"sync"
	"time"
)

// logFile writes lines behind the back of who made them: write only copies. Once a second what has come is handed to the file.
// A file that fails, fills or cannot follow is given up; the session goes on.
type logFile struct {
	mu      sync.Mutex
	pending []byte
	written int64
	broken  bool
	onBreak func()

	out  io.WriteCloser
	quit chan struct{}
	done chan struct{}
}

// Bounds of a log file.
const (
	maxPending  = 4 << 20
	maxLogBytes = 256 << 20
	logInterval = time.Second
)

// newLogFile takes over out, which may be nil: then nothing is written. onBreak is called once if lines were lost.
func newLogFile(out io.WriteCloser, onBreak func()) *logFile {
	l := &logFile{out: out, onBreak: onBreak, quit: make(chan struct{}), done: make(chan struct{})}
	if out == nil {
		l.broken = true
		close(l.done)
		return l
	}
	go l.run()
	return l
}

// write adds lines. It never waits for the disk.
func (l *logFile) write(lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return
	}
	l.written += int64(len(lines))
	if len(l.pending)+len(lines) > maxPending || l.written > maxLogBytes {
		l.give(true)
		return
	}
	l.pending = append(l.pending, lines...)
}

// give gives the file up; mu is held.
func (l *logFile) give(up bool) {
	if up && !l.broken {
		l.broken = true
		l.pending = nil
		if l.onBreak != nil {
			l.onBreak()
		}
	}
}

func (l *logFile) run() {
	defer close(l.done)
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	var spare []byte
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-l.quit:
			last = true
		}
		l.mu.Lock()
		b := l.pending
		l.pending = spare[:0]
		l.mu.Unlock()
		if len(b) > 0 {
			_, err := l.out.Write(b)
			l.mu.Lock()
			l.give(err != nil)
			l.mu.Unlock()
		}
		spare = b
	}
	if f, ok := l.out.(interface{ Sync() error }); ok {
		_ = f.Sync() // what is lost was lost by the disk
	}
	err := l.out.Close()
	l.mu.Lock()
	l.give(err != nil)
	l.mu.Unlock()
}

// close writes what is left. It may be called once.
func (l *logFile) close() {
	if l == nil {
		return
	}
	if l.out != nil {
		close(l.quit)
	}
	<-l.done
}
