package serve

import (
	"context"
	"time"
)

// pacer says when frames are due. A frame is late when it comes more than half an interval after it was due; the schedule then
// starts again from there, so that no burst follows a pause.
type pacer struct {
	interval time.Duration
	due      time.Time // of the next frame; zero for now
	shown    [32]time.Time
	count    int
	longest  time.Duration // that a chunk took of late
}

// took notes the time of a chunk. A long one is forgotten in about a hundred chunks.
func (p *pacer) took(d time.Duration) { p.longest = max(d, p.longest-p.longest/64) }

// rest waits until the next chunk has to begin, one and a half times the longest time before its frame is due: what keys do until then still
// counts, and so much slack is left.
func (p *pacer) rest(ctx context.Context) error {
	if p.due.IsZero() {
		return nil
	}
	return sleep(ctx, time.Until(p.due.Add(-p.longest-p.longest/2)))
}

// sleep waits for so long, not at all if that is over.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rate sets the frames a second.
func (p *pacer) rate(fps float64) { p.interval = time.Duration(float64(time.Second) / fps) }

// stop forgets the schedule: the next frame is due when it comes.
func (p *pacer) stop() { p.due, p.count = time.Time{}, 0 }

// await waits until the next frame is due.
func (p *pacer) await(ctx context.Context) (late bool, err error) {
	now := time.Now()
	switch {
	case p.due.IsZero():
		p.due = now
	case now.Before(p.due):
		if err := sleep(ctx, p.due.Sub(now)); err != nil {
			return false, err
		}
		now = time.Now()
	}
	if behind := now.Sub(p.due); behind > p.interval/2 {
		late = true
		p.due = now
	}
	p.due = p.due.Add(p.interval)
	p.shown[p.count%len(p.shown)] = now
	p.count++
	return late, nil
}

// fps returns the rate of the last frames.
func (p *pacer) fps() float64 {
	n := min(p.count, len(p.shown))
	if n < 2 {
		return 0
	}
	last, first := p.shown[(p.count-1)%len(p.shown)], p.shown[(p.count-n)%len(p.shown)]
	if d := last.Sub(first).Seconds(); d > 0 {
		return float64(n-1) / d
	}
	return 0
}
