package main

import (
	"context"

	"longtake/video"
)

// queuedFrames is how many frames may wait for the encoder: enough to hide an uneven encoder, little enough to bound memory.
const queuedFrames = 8

// delivery hands frames to a slower neighbour in a goroutine of its own. The first error, on whichever side, stops both.
type delivery struct {
	ctx    context.Context // cancelled by the first error, which is its cause
	cancel context.CancelCauseFunc
	frames chan video.Frame
	done   chan struct{}
}

// startDelivery calls write for every frame sent, in order.
func startDelivery(ctx context.Context, write func(context.Context, video.Frame) error) *delivery {
	d := &delivery{frames: make(chan video.Frame, queuedFrames), done: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(d.done)
		for f := range d.frames {
			if err := write(d.ctx, f); err != nil {
				d.cancel(err)
				return
			}
		}
	}()
	return d
}

// send passes a frame on; it waits while the queue is full.
func (d *delivery) send(f video.Frame) error {
	select {
	case d.frames <- f:
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

// finish waits until all frames are written, or, if the sender failed with err, until the writer has stopped. It returns the
// first error of the two.
func (d *delivery) finish(err error) error {
	if err != nil {
		d.cancel(err)
	}
	close(d.frames)
	<-d.done
	err = context.Cause(d.ctx)
	d.cancel(nil)
	return err
}
