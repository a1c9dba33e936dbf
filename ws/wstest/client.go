package wstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/ws"
)

// Frame is one frame that a client received.
type Frame struct {
	Binary bool
	Type   string
	Re     string
	Raw    []byte
}

// Decode reads the frame's JSON into v and fails the test when it does not fit.
func (f Frame) Decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(f.Raw, v); err != nil {
		t.Fatalf("frame %s: %v", f.Raw, err)
	}
}

// Ack is the reply to an operation or a snapshot.
type Ack struct {
	Re        string `json:"re"`
	Epoch     string `json:"epoch"`
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
}

// Operation is one operation as clients see it.
type Operation struct {
	Epoch        string          `json:"epoch"`
	Seq          uint64          `json:"seq"`
	ID           string          `json:"id"`
	ConnectionID string          `json:"connection_id"`
	UserID       string          `json:"user_id"`
	Payload      json.RawMessage `json:"payload"`
	At           time.Time       `json:"at"`
}

// Present is one entry of a presence list or frame.
type Present struct {
	ConnectionID string          `json:"connection_id"`
	UserID       string          `json:"user_id"`
	UserName     string          `json:"user_name"`
	Color        string          `json:"color"`
	State        json.RawMessage `json:"state"`
	Reason       string          `json:"reason"`
}

// Presence is a presence broadcast.
type Presence struct {
	Joined  []Present `json:"joined"`
	Updated []Present `json:"updated"`
	Left    []Present `json:"left"`
}

// Joined is the reply to join_document; sync_response has the same fields and more.
type Joined struct {
	Document  string      `json:"document"`
	Epoch     string      `json:"epoch"`
	Seq       uint64      `json:"seq"`
	From      uint64      `json:"from"` // sync_response only
	To        uint64      `json:"to"`   // sync_response only
	Recovered bool        `json:"recovered"`
	Snapshot  *Snapshot   `json:"snapshot"`
	Entries   []Operation `json:"operations"`
	More      bool        `json:"more"`
	Presence  []Present   `json:"presence"`
}

// Snapshot is the kept snapshot in a history.
type Snapshot struct {
	Seq     uint64          `json:"seq"`
	Payload json.RawMessage `json:"payload"`
}

// Error is an error frame.
type Error struct {
	Re           string `json:"re"`
	Code         string `json:"code"`
	Message      string `json:"message"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

// Closed is how the server closed the connection. Code 1006 stands for a
// connection that broke.
type Closed struct {
	Code   int
	Reason string
}

// Client is a client of the tandem.v1 protocol for tests. It reads all that
// comes into a list and lets the test look for what it expects, in order; a
// frame that was looked for is taken out, others stay. Its methods are for
// one goroutine and fail the test when the server does not do as expected.
type Client struct {
	// Fixed after construction.
	t    testing.TB
	ws   *websocket.Conn
	ID   string // connection_id of hello
	done chan struct{}

	mu     sync.Mutex // guards the following
	news   chan struct{}
	frames []Frame
	closed *Closed
}

// DialOptions says how to open a socket; the zero value offers no cookie.
type DialOptions struct {
	Header http.Header // Cookie, Origin
	Dialer *websocket.Dialer
}

// Dial opens a socket and reads hello. url begins with http or ws. The
// connection is closed with the test.
func Dial(t testing.TB, url string, o DialOptions) *Client {
	t.Helper()
	c, response, err := TryDial(t, url, o)
	if err != nil {
		status := ""
		if response != nil {
			status = response.Status
		}
		t.Fatalf("dial %s: %v %s", url, err, status)
	}
	var hello struct {
		ID string `json:"connection_id"`
	}
	c.Expect("hello").Decode(t, &hello)
	c.ID = hello.ID
	return c
}

// TryDial opens a socket that may be refused; then the response says why.
func TryDial(t testing.TB, url string, o DialOptions) (*Client, *http.Response, error) {
	t.Helper()
	dialer := o.Dialer
	if dialer == nil {
		dialer = &websocket.Dialer{Subprotocols: []string{ws.Protocol}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, response, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(strings.TrimPrefix(url, "http"), "ws"), o.Header)
	if err != nil {
		return nil, response, err
	}
	c := &Client{t: t, ws: conn, done: make(chan struct{}), news: make(chan struct{})}
	go c.read()
	t.Cleanup(c.Cut)
	return c, response, nil
}

func (c *Client) read() {
	defer close(c.done)
	for {
		kind, data, err := c.ws.ReadMessage()
		c.mu.Lock()
		if err != nil {
			c.closed = &Closed{Code: websocket.CloseAbnormalClosure}
			var closed *websocket.CloseError
			if errors.As(err, &closed) {
				c.closed = &Closed{closed.Code, closed.Text}
			}
		} else {
			f := Frame{Binary: kind == websocket.BinaryMessage, Raw: data}
			_ = json.Unmarshal(data, &struct {
				Type *string `json:"type"`
				Re   *string `json:"re"`
			}{&f.Type, &f.Re})
			c.frames = append(c.frames, f)
		}
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Cut drops the connection without a close frame. It may be called again.
func (c *Client) Cut() {
	_ = c.ws.Close()
	<-c.done
}

// Close closes the connection as a browser does.
func (c *Client) Close() {
	data := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.ws.WriteControl(websocket.CloseMessage, data, time.Now().Add(time.Second))
	c.ExpectClose()
}

// Send writes v as one text frame.
func (c *Client) Send(v any) {
	c.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	c.SendRaw(websocket.TextMessage, data)
}

// SendText writes a text frame.
func (c *Client) SendText(text string) {
	c.t.Helper()
	c.SendRaw(websocket.TextMessage, []byte(text))
}

// SendRaw writes a frame of that kind. A connection that is closing takes
// what it gets; ExpectClose says how it ended.
func (c *Client) SendRaw(kind int, data []byte) {
	c.t.Helper()
	_ = c.ws.SetWriteDeadline(time.Now().Add(patience))
	_ = c.ws.WriteMessage(kind, data)
}

// Expect waits for a text frame of that type.
func (c *Client) Expect(kind string) Frame {
	c.t.Helper()
	return c.wait("text frame "+kind, func(f Frame) bool { return !f.Binary && f.Type == kind })
}

// ExpectReply waits for the text frame that answers re.
func (c *Client) ExpectReply(re string) Frame {
	c.t.Helper()
	return c.wait("reply to "+re, func(f Frame) bool { return !f.Binary && f.Re == re })
}

// ExpectBroadcast waits for a binary frame of that type.
func (c *Client) ExpectBroadcast(kind string) Frame {
	c.t.Helper()
	return c.wait("binary frame "+kind, func(f Frame) bool { return f.Binary && f.Type == kind })
}

// ExpectError waits for an error frame and checks its code.
func (c *Client) ExpectError(code string) Error {
	c.t.Helper()
	var e Error
	c.Expect("error").Decode(c.t, &e)
	if e.Code != code {
		c.t.Fatalf("error %+v, not %s", e, code)
	}
	return e
}

// ExpectPresence waits until the entries of the presence broadcasts satisfy
// ok, which sees one frame after the other.
func (c *Client) ExpectPresence(what string, ok func(Presence) bool) {
	c.t.Helper()
	for {
		var p Presence
		f := c.wait("presence: "+what, func(f Frame) bool { return f.Binary && f.Type == "presence" })
		f.Decode(c.t, &p)
		if ok(p) {
			return
		}
	}
}

// ExpectClose waits for the end of the connection.
func (c *Client) ExpectClose() Closed {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatalf("the connection was not closed; received: %s", c.received())
	}
	return *c.closed
}

// Received returns and removes every frame that has come and was not looked
// for. To know that something does not come, ask for an answer that would
// come after it, then look here.
func (c *Client) Received() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := c.frames
	c.frames = nil
	return frames
}

// Authenticate logs in by the cookie and checks that it succeeds.
func (c *Client) Authenticate() Frame {
	c.t.Helper()
	c.SendText(`{"type":"authenticate"}`)
	f := c.Expect("auth_result")
	var result struct {
		OK bool `json:"ok"`
	}
	f.Decode(c.t, &result)
	if !result.OK {
		c.t.Fatalf("not authenticated: %s", f.Raw)
	}
	return f
}

// Join joins the document, from the beginning when since is nil.
func (c *Client) Join(since *ws.Position) Joined {
	c.t.Helper()
	c.Send(map[string]any{"type": "join_document", "since": since})
	var j Joined
	c.Expect("joined_document").Decode(c.t, &j)
	return j
}

// Sync asks for what came after since.
func (c *Client) Sync(since ws.Position) Joined {
	c.t.Helper()
	c.Send(map[string]any{"type": "sync_request", "since": since})
	var j Joined
	c.Expect("sync_response").Decode(c.t, &j)
	return j
}

// SendOperation sends an operation without waiting for its ack.
func (c *Client) SendOperation(id string, payload any) {
	c.t.Helper()
	c.Send(map[string]any{"type": "operation", "id": id, "payload": payload})
}

// Operate sends an operation and waits for its ack.
func (c *Client) Operate(id string, payload any) Ack {
	c.t.Helper()
	c.SendOperation(id, payload)
	f := c.ExpectReply(id)
	if f.Type != "ack" {
		c.t.Fatalf("operation %s: %s", id, f.Raw)
	}
	var a Ack
	f.Decode(c.t, &a)
	return a
}

// ExpectOperation waits for the next operation broadcast.
func (c *Client) ExpectOperation() Operation {
	c.t.Helper()
	var op Operation
	c.ExpectBroadcast("operation").Decode(c.t, &op)
	return op
}

// wait returns the first frame that satisfies ok, taking it out of the list.
func (c *Client) wait(what string, ok func(Frame) bool) Frame {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		c.mu.Lock()
		i := slices.IndexFunc(c.frames, ok)
		if i >= 0 {
			f := c.frames[i]
			c.frames = slices.Delete(c.frames, i, i+1)
			c.mu.Unlock()
			return f
		}
		news, closed := c.news, c.closed
		c.mu.Unlock()
		if closed != nil {
			c.t.Fatalf("no %s: closed with %d %q; received: %s", what, closed.Code, closed.Reason, c.received())
		}
		select {
		case <-news:
		case <-timeout:
			c.t.Fatalf("no %s within %v; received: %s", what, patience, c.received())
		}
	}
}

func (c *Client) received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, f := range c.frames {
		fmt.Fprintf(&b, "\n  %.200s", f.Raw)
	}
	return b.String()
}
