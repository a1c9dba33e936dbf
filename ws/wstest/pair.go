package wstest

import (
	"net/http"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/ws"
)

// DialSide opens a side of a pair, of plain messages or, with asJSON, of the
// tandem.pair.v1 protocol.
func DialSide(t testing.TB, url string, header http.Header, asJSON bool) *Client {
	t.Helper()
	c, response, err := TryDialSide(t, url, header, asJSON)
	if err != nil {
		status := ""
		if response != nil {
			status = response.Status
		}
		t.Fatalf("dial %s: %v %s", url, err, status)
	}
	return c
}

// TryDialSide opens a side that may be refused; then the response says why.
func TryDialSide(t testing.TB, url string, header http.Header, asJSON bool) (*Client, *http.Response, error) {
	t.Helper()
	dialer := &websocket.Dialer{}
	if asJSON {
		dialer.Subprotocols = []string{ws.PairProtocol}
	}
	return TryDial(t, url, DialOptions{Header: header, Dialer: dialer})
}

// Next waits for the next frame of any kind.
func (c *Client) Next() Frame {
	c.t.Helper()
	return c.wait("frame", func(Frame) bool { return true })
}

// ExpectText waits for the next frame and checks that it is this text.
func (c *Client) ExpectText(text string) {
	c.t.Helper()
	if f := c.Next(); f.Binary || string(f.Raw) != text {
		c.t.Fatalf("got %.200q, not %.200q", f.Raw, text)
	}
}

// Paired is the frame that says that the counterpart is there.
type Paired struct {
	UniqueID string  `json:"unique_id"`
	Side     ws.Side `json:"side"`
}

// Message is a message of a pair.
type Message struct {
	Index  uint64  `json:"index"`
	From   ws.Side `json:"from"`
	Data   any     `json:"data"`
	Binary bool    `json:"binary"`
}

// ExpectPaired waits for the counterpart.
func (c *Client) ExpectPaired() Paired {
	c.t.Helper()
	var p Paired
	c.Expect("paired").Decode(c.t, &p)
	return p
}

// ExpectMessage waits for a message.
func (c *Client) ExpectMessage() Message {
	c.t.Helper()
	var m Message
	c.Expect("message").Decode(c.t, &m)
	return m
}

// SendMessage sends a message; id may be empty.
func (c *Client) SendMessage(id string, data any) {
	c.t.Helper()
	f := map[string]any{"type": "message", "data": data}
	if id != "" {
		f["id"] = id
	}
	c.Send(f)
}
