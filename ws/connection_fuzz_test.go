package ws_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/ws"
)

// FuzzConnection sends anything to a hub, over a connection of its own each
// time: frames, one a line, in text or in binary, or bytes that are no frames
// at all. Whatever it is, the client is answered with what the protocol knows,
// or closed with a code of it, and nothing of the connection stays behind.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{
		"j{\"type\":\"operation\",\"id\":\"a\",\"payload\":{\"x\":[1,2,{\"y\":null}]}}\n{\"type\":\"sync_request\"}",
		"j{\"type\":\"presence\",\"state\":{\"x\":1}}\n{\"type\":\"leave_document\"}\n{\"type\":\"join_document\",\"since\":{\"epoch\":\"e\",\"seq\":18446744073709551615}}",
		"j{\"type\":\"snapshot\",\"seq\":0,\"payload\":\"\\ud800\"}\n{\"type\":\"session_set\",\"set\":{\"chat.name\":1,\"user.id\":2},\"delete\":[\"chat.x\"]}",
		"j{\"type\":\"session_get\",\"keys\":[\"chat.name\",\"secret\"]}\nb{\"type\":\"ping\"}\n[]\nnull\n\n\xff\n{\"type\":1}",
		"{\"type\":\"join_document\"}\n{\"type\":\"authenticate\",\"ticket\":\"x\"}\n{\"type\":\"authenticate\"}",
		"r\x81\x85\x00\x00\x00\x00hello", "r\x88\x82\x00\x00\x00\x00\x03\xe8", "r\x89\x80\x00\x00\x00\x00\x8a\x80\x00\x00\x00\x00",
		"r\x01\x80\x00\x00\x00\x00\x80\x80\x00\x00\x00\x00", "r\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "r\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
		"j" + strings.Repeat("{\n", 101), "j{\"a\":" + strings.Repeat("[", 200) + "}",
	} {
		f.Add([]byte(seed))
	}
	w := newWorld(f)
	r := w.replica(func(cfg *ws.Config) { cfg.Documents.MaxMessage = 4096 })
	ada := w.login("7")
	var dialed int
	f.Fuzz(func(t *testing.T, data []byte) {
		dialed++
		url := "ws" + strings.TrimPrefix(r.server.URL, "http") + fmt.Sprint("/ws/documents/fuzz", dialed%8)
		conn, _, err := websocket.DefaultDialer.Dial(url, ada.header())
		if err != nil {
			t.Fatal(err)
		}
		pour(conn, data)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		for err == nil {
			err = digest(conn)
		}
		_ = conn.Close()
		if !errors.Is(err, errAnswered) && !errors.Is(err, errOver) {
			t.Error(err)
		}
		eventually(t, "the connection to be gone", func() bool { n, _ := r.hub.Counts(); return n == 0 })
	})
}

// pour sends data, and a ping after it where that makes sense.
func pour(conn *websocket.Conn, data []byte) {
	if raw, ok := bytes.CutPrefix(data, []byte("r")); ok {
		_, _ = conn.NetConn().Write(raw)
		_ = conn.NetConn().(interface{ CloseWrite() error }).CloseWrite()
		return
	}
	if joined, ok := bytes.CutPrefix(data, []byte("j")); ok {
		data = append([]byte("{\"type\":\"authenticate\"}\n{\"type\":\"join_document\"}\n"), joined...)
	}
	for line := range bytes.SplitSeq(append(data, "\n{\"type\":\"authenticate\"}\n{\"type\":\"ping\",\"id\":\"the last\"}"...), []byte("\n")) {
		kind := websocket.TextMessage
		if binary, ok := bytes.CutPrefix(line, []byte("b")); ok {
			kind, line = websocket.BinaryMessage, binary
		}
		if conn.WriteMessage(kind, line) != nil {
			return // closed already
		}
	}
}

var (
	errAnswered = errors.New("the last frame was answered")
	errOver     = errors.New("closed as the protocol says")
)

// direct and broadcast are the types that a client can be sent.
var (
	direct = []string{
		"hello", "auth_result", "joined_document", "left_document", "ack", "sync_response", "session", "pong",
		"session_changed", "session_expiring", "renew", "lagged", "status", "reconnect", "error",
	}
	broadcast = []string{"operation", "presence"}
	codes     = []int{1000, 1001, 1002, 1007, 1009, 4400, 4401, 4403, 4408, 4429}
)

// digest reads one frame and says what is wrong with it.
func digest(conn *websocket.Conn) error {
	kind, data, err := conn.ReadMessage()
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed) && !slices.Contains(append(codes, websocket.CloseAbnormalClosure, websocket.CloseNoStatusReceived), closed.Code):
		return fmt.Errorf("closed with %d %q", closed.Code, closed.Text)
	case err != nil && strings.Contains(err.Error(), "timeout"):
		return errors.New("neither answered nor closed")
	case err != nil:
		return errOver
	}
	var frame struct{ Type, Re string }
	if err := json.Unmarshal(data, &frame); err != nil {
		return fmt.Errorf("%w: %q", err, data)
	}
	known := direct
	if kind == websocket.BinaryMessage {
		known = broadcast
	}
	switch {
	case !slices.Contains(known, frame.Type):
		return fmt.Errorf("a frame of kind %d: %s", kind, data)
	case frame.Type == "pong" && frame.Re == "the last":
		return errAnswered
	}
	return nil
}
