package ws_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// tight joins a document over a connection that nothing is read from unless
// the test does.
func (r *replica) tight(document string, c *cookie) *websocket.Conn {
	r.t.Helper()
	conn, resp, err := websocket.DefaultDialer.Dial(strings.Replace(r.server.URL, "http", "ws", 1)+"/ws/documents/"+document, c.header())
	if err != nil {
		r.t.Fatal(err)
	}
	_ = resp.Body.Close()
	r.t.Cleanup(func() { _ = conn.Close() })
	r.patient(conn)
	for _, frame := range []string{`{"type":"authenticate"}`, `{"type":"join_document"}`} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			r.t.Fatal(err)
		}
	}
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			r.t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte(`{"type":"joined_document"`)) {
			return conn
		}
	}
}

func (r *replica) patient(conn *websocket.Conn) {
	r.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
}

// flood publishes operations that are together more than sockets hold, and
// returns when a member that reads has had them all.
func flood(t *testing.T, w *world, r *replica, document string, count int) (payload string) {
	t.Helper()
	publisher, _ := r.join(document, w.login("publisher"))
	payload = strings.Repeat("0123456789abcdef", 1<<10)
	for n := 1; n <= count; n++ {
		publisher.Operate(fmt.Sprint(n), payload)
		if op := publisher.ExpectOperation(); op.Seq != uint64(n) {
			t.Fatalf("seq %d, not %d", op.Seq, n)
		}
	}
	return payload
}

// What a socket does not take at once comes whole and in order when its client
// reads on, and nobody waits for it.
func TestWritesGoOnWhereTheyStopped(t *testing.T) {
	const count = 500 // 8 MiB
	w := newWorld(t)
	r := w.replica(nil)
	slow := r.tight("tight", w.login("slow"))
	payload := flood(t, w, r, "tight", count)
	r.patient(slow)
	for next := 1; next <= count; {
		kind, data, err := slow.ReadMessage()
		if err != nil {
			t.Fatalf("after %d operations: %v", next-1, err)
		}
		var f struct {
			Type, Payload string
			Seq           int
		}
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatal(err)
		}
		if f.Type != "operation" {
			continue
		}
		if kind != websocket.BinaryMessage || f.Seq != next || f.Payload != payload {
			t.Fatalf("kind %d, seq %d, not %d, %d bytes", kind, f.Seq, next, len(f.Payload))
		}
		next++
	}
}

// A client that closes while half a frame is on its way gets the other half
// before the answer.
func TestCloseIsAnsweredBetweenFrames(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	slow := r.tight("tight", w.login("slow"))
	flood(t, w, r, "tight", 500)
	r.patient(slow)
	if err := slow.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		_, data, err := slow.ReadMessage()
		var closed *websocket.CloseError
		switch {
		case errors.As(err, &closed) && closed.Code == 1000:
			return
		case err != nil:
			t.Fatalf("the answer is %v", err)
		case !json.Valid(data):
			t.Fatalf("no frame: %.100q", data)
		}
	}
}
