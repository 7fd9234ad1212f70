package serve

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"longtake/api"
	"longtake/video/webm"
)

// WebRTC is Realtime by pion, with VP8 key frames from Go alone. It uses no STUN or TURN server: it serves browsers that can
// reach this machine by UDP; others fall back to the WebSocket.
type WebRTC struct {
	api    *webrtc.API
	places chan struct{}
}

// Bounds of WebRTC.
const (
	maxOffer     = 64 << 10
	maxPeers     = 32 // each encodes for itself
	gatherTime   = 3 * time.Second
	connectTime  = 15 * time.Second
	videoQuality = 80
)

// NewWebRTC returns a WebRTC.
func NewWebRTC() (*WebRTC, error) {
	codecs := &webrtc.MediaEngine{}
	vp8 := webrtc.RTPCodecParameters{PayloadType: 96,
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
	if err := codecs.RegisterCodec(vp8, webrtc.RTPCodecTypeVideo); err != nil {
		return nil, err
	}
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetSCTPMaxMessageSize(api.MaxControlBytes)
	return &WebRTC{api: webrtc.NewAPI(webrtc.WithMediaEngine(codecs), webrtc.WithSettingEngine(settings)), places: make(chan struct{}, maxPeers)}, nil
}

// Answer implements Realtime.
func (w *WebRTC) Answer(ctx context.Context, offer api.Offer, peer Peer, gone func()) (answer api.Offer, err error) {
	if offer.Type != "offer" || len(offer.SDP) > maxOffer {
		return answer, errors.New("an SDP offer of at most 64 KiB is wanted")
	}
	select {
	case w.places <- struct{}{}:
	default:
		return answer, &FullError{fmt.Sprintf("%d peers are connected", maxPeers), retryFull}
	}
	pc, err := w.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		<-w.places
		return answer, err
	}
	x := &connection{pc: pc, peer: peer, up: make(chan struct{}), down: make(chan struct{})}
	leave := func() { _ = pc.Close(); <-w.places }
	if answer, err = x.negotiate(ctx, offer); err != nil {
		leave()
		return answer, err
	}
	go func() {
		x.run(ctx)
		leave()
		gone()
	}()
	return answer, nil
}

// connection is one browser.
type connection struct {
	pc       *webrtc.PeerConnection
	peer     Peer
	track    *webrtc.TrackLocalStaticSample
	up, down chan struct{}
	once     [2]sync.Once
}

func (x *connection) negotiate(ctx context.Context, offer api.Offer) (answer api.Offer, err error) {
	x.track, err = webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "longtake")
	if err != nil {
		return answer, err
	}
	sender, err := x.pc.AddTrack(x.track)
	if err != nil {
		return answer, err
	}
	go func() { // reports of the browser have to be read; every frame is a key frame, so none asks for anything
		b := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(b); err != nil {
				return
			}
		}
	}()
	x.pc.OnDataChannel(func(d *webrtc.DataChannel) {
		d.OnMessage(func(m webrtc.DataChannelMessage) {
			if m.IsString {
				x.peer.Control(m.Data)
			}
		})
	})
	x.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			x.once[0].Do(func() { close(x.up) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed, webrtc.PeerConnectionStateDisconnected:
			x.once[1].Do(func() { close(x.down) })
		}
	})
	if err := x.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer.SDP}); err != nil {
		return answer, err
	}
	local, err := x.pc.CreateAnswer(nil)
	if err != nil {
		return answer, err
	}
	gathered := webrtc.GatheringCompletePromise(x.pc)
	if err := x.pc.SetLocalDescription(local); err != nil {
		return answer, err
	}
	select {
	case <-gathered:
	case <-time.After(gatherTime):
	case <-ctx.Done():
		return answer, ctx.Err()
	}
	return api.Offer{Type: "answer", SDP: x.pc.LocalDescription().SDP}, nil
}

// run sends frames until the connection or the session ends.
func (x *connection) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-x.up:
	case <-x.down:
		return
	case <-ctx.Done():
		return
	case <-time.After(connectTime):
		return
	}
	go func() {
		select {
		case <-x.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	coder := webm.NewVP8(videoQuality)
	scale := enlarge(x.peer.Width, x.peer.Height)
	var big []byte
	last := time.Now()
	for {
		f, err := x.peer.Frame(ctx)
		if err != nil {
			return
		}
		large := f.Upscale(scale, big)
		if scale > 1 {
			big = large.Pix
		}
		data, err := coder.EncodeKeyFrame(large)
		if err != nil {
			return
		}
		now := time.Now()
		// The encoder's slice is its own; the packets of a sample are sent before WriteSample returns.
		if x.track.WriteSample(media.Sample{Data: data, Duration: min(now.Sub(last), time.Second)}) != nil {
			return
		}
		last = now
	}
}
