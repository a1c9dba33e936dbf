package ws_test

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// masked is one short frame of a client, masked with zeros.
func masked(op byte, body string) string {
	return string([]byte{0x80 | op, 0x80 | byte(len(body)), 0, 0, 0, 0}) + body
}

// What is answered when the client's close comes right behind it is not sent
// behind the answer to that: nothing follows a close frame.
func TestNothingFollowsACloseFrame(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	for range 100 {
		conn := r.tight("closing", w.login("ada"))
		ping := masked(1, `{"type":"ping"}`)
		raw := conn.NetConn()
		if _, err := io.WriteString(raw, ping+ping+ping+masked(8, "\x03\xe8")); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(raw) // to its end, however that comes
		close := []byte{0x88, 2, 3, 0xe8}
		if _, after, ok := bytes.Cut(answer, close); !ok || len(after) > 0 {
			t.Fatalf("after the close frame (%t): %q", ok, after)
		}
		_ = conn.Close()
	}
}

// An idle client answers pings. Its reader waits on a small stack again after
// that, and not within the library for the frame that comes next.
func TestPongsLeaveTheReaderSmall(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	conn := r.tight("idle", w.login("ada"))
	for _, sign := range []int{websocket.PongMessage, websocket.PingMessage} {
		if err := conn.WriteControl(sign, []byte("x"), time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	ponged := false
	conn.SetPongHandler(func(data string) error { ponged = data == "x"; return nil })
	r.patient(conn)
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), `"pong"`) {
			break
		}
	}
	if !ponged {
		t.Error("the ping was not answered")
	}
	if runtime.GOOS != "linux" {
		return // elsewhere readers wait within the library
	}
	if err := conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader to wait outside the library", func() bool {
		stacks := make([]byte, 1<<20)
		all := string(stacks[:runtime.Stack(stacks, true)])
		return strings.Contains(all, "ws.awaitInput") && !strings.Contains(all, "ws.(*conn).readOne")
	})
}
