package main

import (
	"context"
	"errors"
	"slices"
	"testing"

	"longtake/video"
)

func TestFramesArriveInOrder(t *testing.T) {
	var got []int
	d := startDelivery(t.Context(), func(_ context.Context, f video.Frame) error {
		got = append(got, f.Index)
		return nil
	})
	var want []int
	for i := range 50 {
		want = append(want, i)
		if err := d.send(video.Frame{Index: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.finish(nil); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTheFirstErrorStopsBothSides(t *testing.T) {
	full := errors.New("disk full")
	d := startDelivery(t.Context(), func(_ context.Context, f video.Frame) error {
		if f.Index == 3 {
			return full
		}
		return nil
	})
	var err error
	for i := 0; err == nil; i++ { // ends because the queue is bounded
		err = d.send(video.Frame{Index: i})
	}
	// What makes frames sees the cancelled context before it sees the cause.
	if got := d.finish(context.Canceled); err != full || got != full {
		t.Errorf("send said %v, finish %v", err, got)
	}

	broken := errors.New("device lost")
	d = startDelivery(t.Context(), func(ctx context.Context, _ video.Frame) error { return ctx.Err() })
	d.send(video.Frame{})
	if got := d.finish(broken); got != broken {
		t.Errorf("finish said %v", got)
	}
}

func TestASlowWriterHoldsTheSenderBack(t *testing.T) {
	release := make(chan struct{})
	d := startDelivery(t.Context(), func(context.Context, video.Frame) error {
		<-release
		return nil
	})
	for range queuedFrames { // one more is with the writer, perhaps
		d.send(video.Frame{})
	}
	d.send(video.Frame{})
	sent := make(chan struct{})
	go func() {
		d.send(video.Frame{})
		close(sent)
	}()
	select {
	case <-sent:
		t.Error("the queue is not bounded")
	default:
	}
	close(release)
	<-sent
	if err := d.finish(nil); err != nil {
		t.Error(err)
	}
}
