package ws_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/ws"
)

const audience = 1000

// BenchmarkBroadcast measures one operation reaching 1,000 joined local
// members, from append to the last one's socket, beside a bare loop over as
// many gorilla connections with one PreparedMessage. The ratio of the two is
// what counts: go test -bench Broadcast ./ws
func BenchmarkBroadcast(b *testing.B) {
	b.Run("bare", benchmarkBare)
	b.Run("documents", benchmarkDocuments)
}

// counter reads raw bytes from sockets, cheaply: what the receiving ends cost
// is the same for both.
type counter struct {
	bytes atomic.Int64
	wg    sync.WaitGroup
}

func (c *counter) drain(conn *websocket.Conn) {
	c.wg.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := conn.NetConn().Read(buf)
			c.bytes.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
}

// wait returns once want bytes have come since the last reset.
func (c *counter) wait(b *testing.B, want int64) {
	for deadline := time.Now().Add(patience); c.bytes.Load() < want; {
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d bytes", c.bytes.Load(), want)
		}
		time.Sleep(20 * time.Microsecond)
	}
	c.bytes.Store(0)
}

func payloadFrame(i int) []byte {
	return fmt.Appendf(nil, `{"type":"operation","epoch":"epoch1","seq":%08d,"id":"%08d","connection_id":"","user_id":"","payload":"%s","at":"2030-01-02T03:04:05.678Z"}`,
		i, i, strings.Repeat("x", 100))
}

func benchmarkBare(b *testing.B) {
	var mu sync.Mutex
	var conns []*websocket.Conn
	upgrader := websocket.Upgrader{WriteBufferPool: &sync.Pool{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			b.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}))
	defer server.Close()
	var received counter
	var clients []*websocket.Conn
	for range audience {
		c, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
		received.drain(c)
	}
	eventually(b, "the last upgrade", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(conns) == audience
	})
	for i := 0; b.Loop(); i++ {
		data := payloadFrame(i)
		message, err := websocket.NewPreparedMessage(websocket.BinaryMessage, data)
		if err != nil {
			b.Fatal(err)
		}
		mu.Lock()
		for _, c := range conns {
			if err := c.WritePreparedMessage(message); err != nil {
				b.Fatal(err)
			}
		}
		mu.Unlock()
		received.wait(b, audience*int64(len(data)+4))
	}
	for _, c := range append(clients, conns...) {
		_ = c.Close()
	}
	received.wg.Wait()
}

func benchmarkDocuments(b *testing.B) {
	w := newWorld(b)
	r := w.replica(nil)
	ada := w.login("7")
	var received counter
	var clients []*websocket.Conn
	for range audience {
		c, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(r.server.URL, "http")+"/ws/documents/d", ada.header())
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
		for _, frame := range []string{`{"type":"authenticate"}`, `{"type":"join_document"}`} {
			if err := c.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
				b.Fatal(err)
			}
		}
		received.drain(c)
	}
	// The joins and their presence frames have to be through.
	for last := int64(-1); last != received.bytes.Load(); time.Sleep(500 * time.Millisecond) {
		last = received.bytes.Load()
	}
	received.bytes.Store(0)
	for i := 0; b.Loop(); i++ {
		op := ws.Operation{ID: fmt.Sprintf("%08d", i), Payload: []byte(`"` + strings.Repeat("x", 100) + `"`), At: time.Now()}
		ack, err := r.backplane.Append(b.Context(), "d", op, ws.Position{})
		if err != nil {
			b.Fatal(err)
		}
		size := len(ws.OperationHead(ack.Position)) + len(op.FrameTail())
		received.wait(b, audience*int64(size+4))
	}
	for _, c := range clients {
		_ = c.Close()
	}
	received.wg.Wait()
}
