package ws_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestPairRelay(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{mode: ws.ModeRelay}), w.replica("b", pairOptions{mode: ws.ModeRelay})
		me, you := w.login("1"), w.login("2")
		left := a.plain(ws.Left, "p", me)
		left.SendText("early")
		left.SendRaw(websocket.BinaryMessage, []byte{0, 1, 0xff})
		left.SendText("")
		right := b.plain(ws.Right, "p", you)
		right.ExpectText("early")
		if f := right.Next(); !f.Binary || !bytes.Equal(f.Raw, []byte{0, 1, 0xff}) {
			t.Errorf("%+v", f)
		}
		right.ExpectText("")
		right.SendText("back")
		left.ExpectText("back")

		// One side speaks JSON, the other does not.
		right.Close()
		spoken := b.json(ws.Right, "p", you)
		spoken.ExpectPaired()
		left.SendText(`quoted "text"`)
		if m := spoken.ExpectMessage(); m.Data != `quoted "text"` || m.From != ws.Left || m.Index != 4 {
			t.Errorf("%+v", m)
		}
		left.SendRaw(websocket.BinaryMessage, []byte("binary"))
		if m := spoken.ExpectMessage(); m.Data != "YmluYXJ5" || !m.Binary {
			t.Errorf("%+v", m)
		}
		spoken.SendMessage("", "a \"string\"\n")
		left.ExpectText("a \"string\"\n")
		spoken.SendText(`{"type":"message","data":{"n": 12345678901234567890}}`)
		left.ExpectText(`{"n": 12345678901234567890}`)
	})
}

// What a client sent before it closed arrives, however slow the other reads.
func TestPairRelayOutlivesItsSender(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{mode: ws.ModeRelay}), w.replica("b", pairOptions{mode: ws.ModeRelay})
		right := b.json(ws.Right, "p", w.login("2"))
		left := a.plain(ws.Left, "p", w.login("1"))
		right.ExpectPaired()
		const n = 300
		for i := range n {
			left.SendText(fmt.Sprint(i))
		}
		left.Close()
		for i := range n {
			if f := right.Next(); !strings.Contains(string(f.Raw), fmt.Sprintf(`"data":"%d"`, i)) {
				t.Fatalf("%s, not %d", f.Raw, i)
			}
		}
		right.Expect("counterpart_left")
	})
}

// A sender is told what its counterpart did not get before it left.
func TestPairUndelivered(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{mode: ws.ModeRelay}), w.replica("b", pairOptions{mode: ws.ModeRelay})
		left := a.json(ws.Left, "p", w.login("1"))
		right := b.json(ws.Right, "p", w.login("2"))
		left.ExpectPaired()
		right.ExpectPaired()
		// The receiver's replica takes nothing: what is sent piles up to the bounds.
		b.link.Blackhole(true)
		var sending sync.WaitGroup
		var enough atomic.Bool
		sent := 0
		sending.Go(func() {
			for data := strings.Repeat("x", 32<<10); !enough.Load(); sent++ {
				left.SendMessage(fmt.Sprint(sent), data) // waits when all is full
			}
		})
		eventually(t, "the sender to be held back", func() bool { return w.underway("p", ws.Left) >= ws.PairWindow })
		enough.Store(true)
		right.Close()
		e := left.Expect("error")
		var undelivered struct {
			Code  string   `json:"code"`
			Count int      `json:"count"`
			IDs   []string `json:"ids"`
		}
		e.Decode(t, &undelivered)
		if undelivered.Code != "UNAVAILABLE" || undelivered.Count < ws.PairWindow || len(undelivered.IDs) != undelivered.Count {
			t.Errorf("%s", e.Raw)
		}
		left.Expect("counterpart_left")
		b.link.Blackhole(false)

		// Whoever comes gets what was not posted, and not what was lost.
		again := a.json(ws.Right, "p", w.login("2"))
		left.ExpectPaired()
		sending.Wait()
		left.SendMessage("last", "last")
		came := 0
		for m := again.ExpectMessage(); m.Data != "last"; m = again.ExpectMessage() {
			came++
		}
		if came+undelivered.Count != sent {
			t.Errorf("%d came and %d were reported, of %d", came, undelivered.Count, sent)
		}
	})
}

// underway is how many batches of a side are in the store.
func (w *pairWorld) underway(pair string, side ws.Side) int {
	w.t.Helper()
	fields, err := w.redis.HKeys(w.t.Context(), "tandem:pair:{pair:"+pair+"}").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, f := range fields {
		if rest, ok := strings.CutPrefix(f, string(side)+":"); ok && rest[0] >= '0' && rest[0] <= '9' {
			n++
		}
	}
	return n
}

// dialRaw opens a side that nobody reads from unless the test does.
func dialRaw(t *testing.T, url string, c *cookie) (*websocket.Conn, *http.Response) {
	t.Helper()
	conn, response, err := (&websocket.Dialer{}).Dial("ws"+strings.TrimPrefix(url, "http"), c.header())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, response
}

// Every byte arrives, once and in order, and what is under way is bounded on
// all of its way: the sender waits for the receiver.
func TestPairRelaySlowReader(t *testing.T) {
	w := newPairWorld(t, redistest.Start(t))
	change := func(c *ws.Config) { c.Limits.FramesPerSecond = 0 }
	a := w.replica("a", pairOptions{mode: ws.ModeRelay, change: change})
	b := w.replica("b", pairOptions{mode: ws.ModeRelay, change: change})
	left, _ := dialRaw(t, a.url(ws.Left, "p"), w.login("1"))
	right, _ := dialRaw(t, b.url(ws.Right, "p"), w.login("2"))

	const total, pause = 16 << 20, 1 << 20 // the binary's test relays 64 MiB
	var heap, store uint64
	var sending sync.WaitGroup
	sending.Go(func() {
		source := newNumbers(1)
		for sent := 0; sent < total; {
			data := make([]byte, 1+source.r.IntN(60<<10))
			source.fill(data)
			sent += len(data)
			if err := left.WriteMessage(websocket.BinaryMessage, data); err != nil {
				t.Errorf("after %d bytes: %v", sent, err)
				return
			}
		}
		_ = left.WriteMessage(websocket.TextMessage, []byte("end"))
	})
	defer sending.Wait()

	expected, read := newNumbers(1), 0
	for {
		kind, data, err := right.ReadMessage()
		if err != nil {
			t.Fatalf("after %d bytes: %v", read, err)
		}
		if kind == websocket.TextMessage {
			break
		}
		want := make([]byte, 1+expected.r.IntN(60<<10))
		expected.fill(want)
		if !bytes.Equal(data, want) {
			t.Fatalf("other bytes after %d", read)
		}
		if before := read; before/pause != (read+len(data))/pause {
			time.Sleep(100 * time.Millisecond) // the slowness that is tested
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapAlloc)
			used, err := w.redis.MemoryUsage(t.Context(), "tandem:pair:{pair:p}", 0).Result() // 0: every field, no estimate
			if err != nil {
				t.Fatal(err)
			}
			store = max(store, uint64(used))
		}
		read += len(data)
	}
	t.Logf("%d MiB; at most %d KiB in Redis, heap %d KiB", read>>20, store>>10, heap>>10)
	if limit := uint64(4 * ws.PairWindow * 64 << 10); store > limit { // a batch may end with a whole message, and Redis rounds up
		t.Errorf("%d bytes in Redis, over %d", store, limit)
	}
}

// numbers makes the same bytes twice.
type numbers struct{ r *rand.Rand }

func newNumbers(seed uint64) *numbers { return &numbers{rand.New(rand.NewPCG(seed, seed))} }

func (n *numbers) fill(b []byte) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], n.r.Uint64())
	}
}

// Both directions at once, each side slow in its own way: neither waits for
// the other's direction.
func TestPairRelayBothWays(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		change := func(c *ws.Config) { c.Limits.FramesPerSecond = 0 }
		a := w.replica("a", pairOptions{mode: ws.ModeRelay, change: change})
		b := w.replica("b", pairOptions{mode: ws.ModeRelay, change: change})
		left, right := a.plain(ws.Left, "p", w.login("1")), b.plain(ws.Right, "p", w.login("2"))
		const n = 500
		var both sync.WaitGroup
		for side, c := range map[string]*wstest.Client{"l": left, "r": right} {
			both.Go(func() {
				for i := range n {
					c.SendText(fmt.Sprint(side, i, strings.Repeat(".", i%50*20)))
				}
			})
		}
		both.Wait()
		for i := range n {
			right.ExpectText(fmt.Sprint("l", i, strings.Repeat(".", i%50*20)))
			left.ExpectText(fmt.Sprint("r", i, strings.Repeat(".", i%50*20)))
		}
	})
}
