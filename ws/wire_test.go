package ws

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// Frames of every length form are read by a client as what they were made of, alone and several in one write.
func TestWired(t *testing.T) {
	lengths := []int{0, 1, 125, 126, 127, 0xffff, 0x10000, 70000}
	upgrader := websocket.Upgrader{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		var all batch
		for _, n := range lengths {
			all.add(wired(bytes.Repeat([]byte("x"), n)))
		}
		defer all.release()
		if _, err := c.NetConn().Write(all.wire); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	c, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, n := range lengths {
		kind, data, err := c.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(data, bytes.Repeat([]byte("x"), n)) {
			t.Fatalf("%d bytes came as %d of kind %d: %v", n, len(data), kind, err)
		}
	}
}

// A batch takes its first frame whatever its size, and others as long as they fit.
func TestBatchFits(t *testing.T) {
	var b batch
	defer b.release()
	if !b.fits(make([]byte, 2*maxBatch)) {
		t.Error("a long frame would never be written")
	}
	b.add(make([]byte, maxBatch-100))
	if !b.fits(make([]byte, 100)) || b.fits(make([]byte, 101)) {
		t.Error("the bound is not maxBatch")
	}
}
