package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"longtake/api"
)

// dialect is what a viewer asks for in its query.
type dialect struct {
	format string
	watch  bool // no controls
}

func readDialect(q url.Values) (d dialect, err error) {
	if v := q.Get("protocol_version"); v != strconv.Itoa(api.ProtocolVersion) {
		return d, badf("protocol_version %.10q: this server speaks version %d", v, api.ProtocolVersion)
	}
	if d.format = q.Get("format"); d.format == "" {
		d.format = "jpeg"
	}
	if d.format != "none" && !knownFormat(d.format) {
		return d, badf("unknown format %.20q: jpeg, png, raw and none are known", d.format)
	}
	d.watch = q.Get("watch") == "1"
	return d, nil
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	// Origin and Host were checked by guard.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err // Accept has answered
	}
	c.SetReadLimit(s.limits.Control)
	return c, nil
}

// upgrades refuses what is no WebSocket handshake with JSON, before anything is started for it.
func upgrades(r *http.Request) error {
	if r.Header.Get("Upgrade") == "" {
		return refuse(http.StatusUpgradeRequired, api.BadRequest, "this is a WebSocket")
	}
	return nil
}

// stream shows a session to a viewer.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, who string) error {
	d, err := readDialect(r.URL.Query())
	if err != nil {
		return err
	}
	x, err := s.find(r.PathValue("id"), who, d.watch)
	if err != nil {
		return err
	}
	if err := upgrades(r); err != nil {
		return err
	}
	c, err := s.accept(w, r)
	if err != nil {
		return nil
	}
	defer c.CloseNow()
	s.converse(r.Context(), c, x, d)
	return nil
}

// play starts a session for a viewer; it ends when the viewer goes.
func (s *Server) play(w http.ResponseWriter, r *http.Request, who string) error {
	q := r.URL.Query()
	d, err := readDialect(q)
	if err != nil {
		return err
	}
	request := api.SessionRequest{Model: q.Get("model"), Start: q.Get("start"), Policy: q.Get("policy"), Compare: q.Get("compare")}
	if text := q.Get("seed"); text != "" {
		if request.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return badf("seed %.30q is no number from 0 to 2^64-1", text)
		}
	}
	if text := q.Get("fps"); text != "" {
		if request.FPS, err = strconv.ParseFloat(text, 64); err != nil {
			return badf("fps %.30q is no number", text)
		}
	}
	o, err := s.opening(&request)
	if err != nil {
		return err
	}
	if err := upgrades(r); err != nil {
		return err
	}
	c, err := s.accept(w, r)
	if err != nil {
		return nil
	}
	defer c.CloseNow()
	x, err := s.open(who, o)
	if err != nil { // a page cannot see why a handshake was refused
		_, body := s.explain(err)
		code := websocket.StatusInternalError
		if body.RetryAfter > 0 {
			code = websocket.StatusTryAgainLater
		}
		s.sendNotice(r.Context(), c, &api.Notice{Type: "error", Error: &body.Error, RetryAfter: body.RetryAfter})
		c.Close(code, fmt.Sprintf("retry_after=%g", body.RetryAfter))
		return nil
	}
	defer s.end(x, errGone)
	s.converse(r.Context(), c, x, d)
	return nil
}

// converse serves a viewer until either side ends.
func (s *Server) converse(ctx context.Context, c *websocket.Conn, x *Session, d dialect) {
	v, err := x.attach()
	if err != nil {
		_, body := s.explain(err)
		s.sendNotice(ctx, c, &api.Notice{Type: "error", Error: &body.Error, RetryAfter: body.RetryAfter})
		c.Close(websocket.StatusTryAgainLater, fmt.Sprintf("retry_after=%g", body.RetryAfter))
		return
	}
	defer x.detach(v)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		defer cancel()
		s.listen(ctx, c, x, v, d)
	}()
	go s.ping(ctx, c, cancel)
	if s.greet(ctx, c, x) == nil {
		s.tell(ctx, c, v, d)
	}
	c.CloseNow()
	<-heard
}

func (s *Server) greet(ctx context.Context, c *websocket.Conn, x *Session) error {
	m, err := s.describeModel(x.model)
	if err != nil {
		return err
	}
	a, prompt := x.describe()
	return s.sendNotice(ctx, c, &api.Notice{Type: "hello", ProtocolVersion: api.ProtocolVersion, Session: &a, Model: &m, Prompt: prompt})
}

// pingEvery finds viewers that vanished without a word.
const pingEvery = 20 * time.Second

func (s *Server) ping(ctx context.Context, c *websocket.Conn, cancel context.CancelFunc) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		late, done := context.WithTimeout(ctx, s.limits.SlowWrite)
		err := c.Ping(late)
		done()
		if err != nil {
			cancel()
			return
		}
	}
}

// maxMistakes is how many messages that mean nothing are answered before the viewer is sent away.
const maxMistakes = 8

// listen reads controls. More than the limit of a second are read later, which slows their sender alone.
func (s *Server) listen(ctx context.Context, c *websocket.Conn, x *Session, v *viewer, d dialect) {
	pace := newBucket(s.limits.Controls, s.limits.Controls)
	mistakes := 0
	for {
		kind, b, err := c.Read(ctx)
		if err != nil || pace.wait(ctx) != nil {
			return
		}
		var control api.Control
		switch {
		case kind != websocket.MessageText:
			err = errors.New("controls are JSON texts")
		case d.watch:
			err = errors.New("this viewer only watches")
		default:
			control, err = api.ParseControl(b)
		}
		if err == nil {
			x.control(v, control)
			continue
		}
		x.refuse(v, control.ID, badf("%w", err))
		if mistakes++; mistakes >= maxMistakes {
			c.Close(websocket.StatusPolicyViolation, "too many messages that mean nothing")
			return
		}
	}
}

// tell writes what comes for the viewer, until the session ends or the viewer is too slow for a single frame.
func (s *Server) tell(ctx context.Context, c *websocket.Conn, v *viewer, d dialect) {
	var buffer []byte
	seen := 0
	for {
		p, more, err := v.fetch(ctx)
		if err != nil {
			if errors.Is(err, errSlow) {
				c.Close(websocket.StatusPolicyViolation, errSlow.Error())
			}
			return
		}
		s.metrics.dropped.Add(float64(p.dropped - seen))
		seen = p.dropped
		end := ""
		for i := range p.notices {
			if p.notices[i].Type == "end" {
				end = p.notices[i].Reason
			}
			if s.sendNotice(ctx, c, &p.notices[i]) != nil {
				return
			}
		}
		for _, m := range p.maps {
			if m != nil && s.sendNotice(ctx, c, &api.Notice{Type: "map", Map: m}) != nil {
				return
			}
		}
		for _, pic := range p.frames {
			if pic == nil {
				continue
			}
			if buffer, err = frameMessage(buffer[:0], pic, &p, d.format); err != nil {
				s.logger.Error("frame", "error", err)
				return
			}
			if s.send1(ctx, c, websocket.MessageBinary, buffer) != nil {
				return
			}
		}
		if !more || end != "" {
			c.Close(closeCode(end), end)
			return
		}
	}
}

// closeCode says to a WebSocket why a session ended.
func closeCode(reason string) websocket.StatusCode {
	switch reason {
	case errDraining.Error():
		return websocket.StatusGoingAway
	case errDeleted.Error(), errIdle.Error(), errLife.Error(), errGone.Error(), "":
		return websocket.StatusNormalClosure
	}
	return websocket.StatusInternalError
}

// frameMessage is a frame as the protocol has it.
func frameMessage(dst []byte, p *picture, from *parcel, format string) ([]byte, error) {
	e, err := p.encode(format)
	if err != nil {
		return dst, err
	}
	h := p.header
	h.Format, h.Width, h.Height, h.Dropped = format, e.width, e.height, from.dropped
	if h.View == 0 {
		h.Echo = from.echo
	}
	return api.AppendFrame(dst, &h, e.data)
}

func (s *Server) sendNotice(ctx context.Context, c *websocket.Conn, n *api.Notice) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return s.send1(ctx, c, websocket.MessageText, b)
}

// send1 writes one message, and gives the viewer up that does not take it.
func (s *Server) send1(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.SlowWrite)
	defer cancel()
	return c.Write(ctx, kind, b)
}

// mjpeg shows a session to whatever can show images.
func (s *Server) mjpeg(w http.ResponseWriter, r *http.Request, who string) error {
	x, err := s.find(r.PathValue("id"), who, true)
	if err != nil {
		return err
	}
	v, err := x.attach()
	if err != nil {
		return err
	}
	defer x.detach(v)
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetWriteDeadline(time.Now().Add(s.limits.SlowWrite))
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	for {
		p, more, err := v.fetch(r.Context())
		if err != nil || !more {
			return nil
		}
		if p.frames[0] == nil {
			continue
		}
		e, err := p.frames[0].encode("jpeg")
		if err != nil {
			return nil
		}
		_ = deadlines.SetWriteDeadline(time.Now().Add(s.limits.SlowWrite))
		_, err = fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(e.data), e.data)
		if err == nil {
			err = deadlines.Flush()
		}
		if err != nil {
			return nil
		}
	}
}
