package serve

import (
	"context"
	"net/http"

	"longtake/api"
	"longtake/video"
)

// Realtime carries frames over WebRTC.
type Realtime interface {
	// Answer takes an offer and runs the connection until it ends or ctx does. It returns after the answer is made; gone is
	// called once, later, or not at all after an error.
	Answer(ctx context.Context, offer api.Offer, peer Peer, gone func()) (api.Offer, error)
}

// Peer is what a WebRTC connection shows and obeys.
type Peer struct {
	// Frame waits for the next frame of the first view; io.EOF ends.
	Frame func(ctx context.Context) (video.Frame, error)
	// Control takes a message.
	Control       func([]byte)
	Width, Height int
	FPS           float64
}

// realtime answers a WebRTC offer: frames by video track, controls by data channel.
func (s *Server) realtime(w http.ResponseWriter, r *http.Request, who string) error {
	if s.Realtime == nil {
		return notFound("transport", "webrtc")
	}
	x, err := s.find(r.PathValue("id"), who, false)
	if err != nil {
		return err
	}
	var offer api.Offer
	if err := body(r, &offer); err != nil {
		return err
	}
	v, err := x.attach()
	if err != nil {
		return err
	}
	// The connection outlives the request, not the session.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	go func() {
		select {
		case <-x.done:
		case <-ctx.Done():
		}
		cancel()
	}()
	gone := func() { cancel(); x.detach(v) }
	pace := newBucket(s.limits.Controls, s.limits.Controls)
	peer := Peer{Width: x.model.Width, Height: x.model.Height, FPS: x.model.FPS, Frame: v.frame, Control: func(b []byte) {
		if c, err := api.ParseControl(b); err == nil && pace.take() == 0 {
			x.control(v, c)
		}
	}}
	answer, err := s.Realtime.Answer(ctx, offer, peer, gone)
	if err != nil {
		gone()
		return badf("offer: %w", err)
	}
	s.write(w, http.StatusOK, answer)
	return nil
}

// frame waits for the next frame of the first view.
func (v *viewer) frame(ctx context.Context) (video.Frame, error) {
	for {
		p, more, err := v.fetch(ctx)
		switch {
		case err != nil:
			return video.Frame{}, err
		case p.frames[0] != nil:
			return p.frames[0].frame, nil
		case !more:
			return video.Frame{}, errEnded
		}
	}
}
