package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"longtake/api"
)

// Player is a viewer of a session. One goroutine may call Next while others call Send.
type Player struct{ conn *websocket.Conn }

// maxMessage bounds a frame: raw pictures of 4096 by 4096.
const maxMessage = 64 << 20

// Message is what comes from the server: a notice, or a frame with its image.
type Message struct {
	Notice *api.Notice
	Frame  *api.FrameHeader
	Image  []byte // valid for ever
}

// Watch connects to a session. Format is "jpeg", "png" or "raw".
func (c *Client) Watch(ctx context.Context, id, format string) (*Player, error) {
	return c.dial(ctx, "/v1/sessions/"+url.PathEscape(id)+"/stream", url.Values{"format": {format}})
}

// Play starts a session that ends with the connection. Query holds seed, start, policy, compare, fps and format.
func (c *Client) Play(ctx context.Context, query url.Values) (*Player, error) {
	return c.dial(ctx, "/v1/play", query)
}

func (c *Client) dial(ctx context.Context, path string, query url.Values) (*Player, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("protocol_version", strconv.Itoa(api.ProtocolVersion))
	head := http.Header{}
	if c.Token != "" {
		head.Set("Authorization", "Bearer "+c.Token)
	}
	address := "ws" + strings.TrimPrefix(strings.TrimSuffix(c.URL, "/"), "http") + path + "?" + query.Encode()
	conn, answer, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: c.HTTP, HTTPHeader: head})
	if err != nil {
		if answer != nil && answer.StatusCode >= 400 && answer.Body != nil {
			return nil, failure(answer)
		}
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	return &Player{conn}, nil
}

// Next waits for the next message. After the end of the session it returns an error whose websocket.CloseStatus says why.
func (p *Player) Next(ctx context.Context) (m Message, err error) {
	kind, b, err := p.conn.Read(ctx)
	if err != nil {
		return m, err
	}
	if kind == websocket.MessageBinary {
		h, image, err := api.ParseFrame(b)
		return Message{Frame: &h, Image: image}, err
	}
	m.Notice = new(api.Notice)
	if err := json.Unmarshal(b, m.Notice); err != nil {
		return m, fmt.Errorf("notice: %w", err)
	}
	return m, nil
}

// Send sends a control.
func (p *Player) Send(ctx context.Context, c api.Control) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return p.conn.Write(ctx, websocket.MessageText, b)
}

// Close ends the connection.
func (p *Player) Close() error { return p.conn.Close(websocket.StatusNormalClosure, "") }

// Cut ends the connection without a word, as a broken line does.
func (p *Player) Cut() error { return p.conn.CloseNow() }
