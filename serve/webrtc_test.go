package serve

import (
	"net/http"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"longtake/api"
)

func TestFramesAndKeysGoOverWebRTC(t *testing.T) {
	rtc, err := NewWebRTC()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options, _ *toy) { o.Realtime = rtc })
	x := r.create(api.SessionRequest{})
	pc, err := rtc.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	packets := make(chan int, 64)
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			select {
			case packets <- len(p.Payload):
			default:
			}
		}
	})
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	keys, err := pc.CreateDataChannel("keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	keys.OnOpen(func() { close(open) })
	r.offer(pc, x.ID)
	for range 5 {
		select {
		case <-packets:
		case <-time.After(15 * time.Second):
			t.Fatal("no frames came")
		}
	}
	select {
	case <-open:
	case <-time.After(15 * time.Second):
		t.Fatal("no data channel")
	}
	p, err := r.client().Watch(t.Context(), x.ID, "none")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Cut()
	if err := keys.SendText(`{"type":"keys","keys":["KeyW"]}`); err != nil {
		t.Fatal(err)
	}
	for next(t, p, anyFrame).Frame.Action != "forward" {
	}
	call2[api.Deleted](r, "DELETE", "/v1/sessions/"+x.ID, nil, http.StatusOK)
	await(t, "the place to be given back", func() bool { return len(rtc.places) == 0 })
}

// offer connects a peer to a session.
func (r *rig) offer(pc *webrtc.PeerConnection, id string) {
	r.t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		r.t.Fatal(err)
	}
	<-gathered
	answer := call2[api.Offer](r, "POST", "/v1/sessions/"+id+"/webrtc", api.Offer{Type: "offer", SDP: pc.LocalDescription().SDP}, http.StatusOK)
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.SDP}); err != nil {
		r.t.Fatal(err)
	}
}

func TestBadOffersAreRefused(t *testing.T) {
	rtc, err := NewWebRTC()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options, _ *toy) { o.Realtime = rtc })
	x := r.create(api.SessionRequest{})
	for name, o := range map[string]api.Offer{"nothing": {}, "no SDP": {Type: "offer", SDP: "v=1"}, "an answer": {Type: "answer"},
		"a huge one": {Type: "offer", SDP: string(make([]byte, maxOffer+1))}} {
		if status, b, _ := r.do("POST", "/v1/sessions/"+x.ID+"/webrtc", o); status != http.StatusBadRequest {
			t.Errorf("%s: status %d %s", name, status, b)
		}
	}
	await(t, "the viewers to be gone", func() bool {
		return call2[api.Session](r, "GET", "/v1/sessions/"+x.ID, nil, 200).Viewers == 0 && len(rtc.places) == 0
	})
}

func FuzzOffers(f *testing.F) {
	f.Add("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n")
	rtc, err := NewWebRTC()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sdp string) {
		pc, err := rtc.api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		_ = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp})
	})
}
