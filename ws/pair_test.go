package ws_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// split takes a plain echo apart: unique ID, index, message.
func split(t *testing.T, f wstest.Frame) (unique, index, message string) {
	t.Helper()
	parts := strings.SplitN(string(f.Raw), " | ", 3)
	if f.Binary || len(parts) != 3 {
		t.Fatalf("no echo: %q", f.Raw)
	}
	return parts[0], parts[1], parts[2]
}

// What is sent early is answered when the counterpart is there, on whichever
// replica, in whichever order they come.
func TestPairEcho(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		me, you := w.login("1"), w.login("2")
		for i, where := range [][2]*pairReplica{{a, a}, {a, b}, {b, a}} {
			for _, first := range []ws.Side{ws.Left, ws.Right} {
				pair := fmt.Sprintf("%d%s", i, first)
				one := where[0].plain(first, pair, me)
				one.SendText("early | one")
				one.SendText("")
				other := where[1].plain(first.Other(), pair, you)
				unique, index, message := split(t, one.Next())
				if index != "0" || message != "early | one" || len(unique) != 26 {
					t.Errorf("%s %s %q", unique, index, message)
				}
				one.ExpectText(unique + " | 1 | ")
				other.SendText("x")
				other.ExpectText(unique + " | 2 | x")
				one.SendText("y")
				one.ExpectText(unique + " | 3 | y")
			}
		}
	})
}

func TestPairJSON(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		left := a.json(ws.Left, "p", w.login("1"))
		left.SendMessage("", map[string]any{"n": 1})
		right := b.json(ws.Right, "p", w.login("2"))
		l, r := left.ExpectPaired(), right.ExpectPaired()
		if l.UniqueID != r.UniqueID || l.Side != ws.Left || r.Side != ws.Right {
			t.Fatalf("%+v %+v", l, r)
		}
		f := left.Expect("message")
		if string(f.Raw) != `{"type":"message","index":0,"from":"left","data":{"n":1}}` {
			t.Errorf("%s", f.Raw)
		}
		right.SendMessage("", "x")
		if m := right.ExpectMessage(); m.Index != 1 || m.From != ws.Right || m.Data != "x" {
			t.Errorf("%+v", m)
		}
		for _, bad := range []string{`x`, `{"type":"message"}`, `{"type":"message","id":7,"data":1}`} {
			left.SendText(bad)
			left.ExpectError("BAD_MESSAGE")
		}
		left.SendText(`{"type":"dance","id":"d"}`)
		if e := left.ExpectError("UNKNOWN_TYPE"); e.Re != "d" {
			t.Errorf("%+v", e)
		}
		right.Close()
		left.Expect("counterpart_left")
	})
}

// Both sides drop and come back, on the other replica: the pair stays the
// same, and no number comes twice.
func TestPairReturns(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		replicas := []*pairReplica{w.replica("a", pairOptions{}), w.replica("b", pairOptions{})}
		cookies := map[ws.Side]*cookie{ws.Left: w.login("1"), ws.Right: w.login("2")}
		clients := map[ws.Side]*wstest.Client{}
		unique, next := "", uint64(0)
		for round := range 6 {
			for _, side := range []ws.Side{ws.Left, ws.Right} {
				if c := clients[side]; c != nil {
					if round%2 == 0 {
						c.Close()
					} else {
						c.Cut()
					}
					if other := clients[side.Other()]; round > 0 {
						other.Expect("counterpart_left")
					}
				}
				clients[side] = replicas[(round+len(side))%2].json(side, "p", cookies[side])
				if other := clients[side.Other()]; other != nil {
					p, q := clients[side].ExpectPaired(), other.ExpectPaired()
					if unique == "" {
						unique = p.UniqueID
					}
					if p.UniqueID != unique || q.UniqueID != unique {
						t.Fatalf("round %d: %s %s, not %s", round, p.UniqueID, q.UniqueID, unique)
					}
					clients[side].SendMessage("", "x")
					if m := clients[side].ExpectMessage(); m.Index != next {
						t.Fatalf("round %d: index %d, not %d", round, m.Index, next)
					}
					next++
				}
			}
		}
		clients[ws.Left].Close()
		clients[ws.Right].Close()
		eventually(t, "the hash to be gone", func() bool { return !w.exists("p") })
	})
}

func TestPairSideTaken(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		me, you := w.login("1"), w.login("2")
		first := a.json(ws.Left, "p", me)
		a.refused(ws.Left, "p", you, http.StatusConflict)
		b.refused(ws.Left, "p", you, http.StatusConflict)

		// The same session comes back before its old socket is known to be dead.
		second := b.json(ws.Left, "p", me)
		expectClose(t, first, ws.CloseSideTaken, "side taken")
		third := b.json(ws.Left, "p", me)
		expectClose(t, second, ws.CloseSideTaken, "side taken")
		right := a.json(ws.Right, "p", you)
		third.ExpectPaired()
		right.ExpectPaired()
		third.Close()
		right.Expect("counterpart_left")
		fourth := a.json(ws.Left, "p", w.login("3"))
		fourth.ExpectPaired()
	})
}

func TestPairRefusals(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{change: func(c *ws.Config) { c.Limits.ConnectionsPerSession = 1 }})
	me := w.login("1")
	for path, status := range map[string]int{
		"/left/x/y": 404, "/left/": 404, "/left": 404, "/middle/x": 404, "/left/right/x": 404, "/": 404,
		"/left/a%2Fb": 404, "/left/" + strings.Repeat("x", 129): 404, "/left/x": 426, "/rooms/right/x": 426,
	} {
		response, body := request(t, http.MethodGet, a.server.URL+path, "", me.header())
		if response.StatusCode != status || response.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, response.StatusCode, body)
		}
		if status == 404 && (!strings.Contains(body, "left/{id}") || !strings.Contains(body, "right/{id}")) {
			t.Errorf("%s: %s", path, body)
		}
	}
	if response, _ := request(t, http.MethodPost, a.server.URL+"/left/x", "", me.header()); response.StatusCode != 405 {
		t.Errorf("POST: %d", response.StatusCode)
	}
	a.refused(ws.Left, "x", nil, 401)
	a.refused(ws.Left, "x", w.login(""), 401)
	foreign := me.header()
	foreign.Set("Origin", "https://evil.example")
	if _, response, err := wstest.TryDialSide(t, a.url(ws.Left, "x"), foreign, false); err == nil || response.StatusCode != 403 {
		t.Errorf("foreign origin: %v", err)
	}
	one := a.plain(ws.Left, "x", me)
	a.refused(ws.Right, "x", me, 429)
	a.asked(ws.Right, "x", me, 429)
	a.asked(ws.Left, "x", w.login("2"), 409)
	a.asked(ws.Right, "x", w.login("2"), 204)
	a.asked(ws.Right, "x", nil, 401)
	if n := a.hub.CountBySession(me.handle); n != 1 {
		t.Errorf("%d connections counted", n)
	}
	one.Close()
	eventually(t, "the connection to be discounted", func() bool { return a.hub.CountBySession(me.handle) == 0 })
	a.asked(ws.Left, "x", w.login("2"), 204)
	a.plain(ws.Right, "x", me)
	a.hub.SetAvailable(false)
	a.refused(ws.Left, "x", w.login("2"), 503)
	a.asked(ws.Left, "x", w.login("2"), 503)
}

func TestPairAnonymous(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{public: true, change: func(c *ws.Config) {
		c.Limits.ConnectionsPerUser, c.Limits.ConnectionsPerSession = 1, 1
	}})
	left, right := a.json(ws.Left, "p", nil), a.json(ws.Right, "p", w.login(""))
	left.ExpectPaired()
	right.ExpectPaired()
	a.refused(ws.Left, "p", nil, http.StatusConflict) // nobody is not the same session
	a.json(ws.Left, "q", w.login(""))
	gone := &cookie{id: sessionstore.NewID()}
	a.json(ws.Right, "q", gone).ExpectPaired()
}

// The end of the session is the end of its sockets, waiting or not.
func TestPairSessionEnds(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{})
	me, you := w.login("1"), w.login("2")
	waiting := a.plain(ws.Left, "alone", me)
	left, right := a.plain(ws.Left, "p", me), a.json(ws.Right, "p", you)
	right.ExpectPaired()
	if err := w.factory.End(t.Context(), me.id, sessionstore.ReasonLogout); err != nil {
		t.Fatal(err)
	}
	expectClose(t, waiting, ws.CloseUnauthorized, "logout")
	expectClose(t, left, ws.CloseUnauthorized, "logout")
	right.Expect("counterpart_left")
	a.refused(ws.Left, "p", me, 401)
}

func TestPairDrain(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{change: func(c *ws.Config) { c.Drain.Spread = 50 * time.Millisecond }})
	b := w.replica("b", pairOptions{})
	me, you := w.login("1"), w.login("2")
	left, right := a.json(ws.Left, "p", me), b.json(ws.Right, "p", you)
	before := left.ExpectPaired()
	right.ExpectPaired()
	waiting := a.plain(ws.Left, "alone", me)
	for _, c := range a.hub.Connections() {
		if c.Kind != "pair" || c.Route != "/left/" || c.Session != me.handle || c.State != map[string]string{"p": "paired", "alone": "waiting"}[c.Document] {
			t.Errorf("%+v", c)
		}
	}
	if err := a.hub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectClose(t, left, ws.CloseRestart, "restart")
	expectClose(t, waiting, ws.CloseRestart, "restart")
	left.Expect("reconnect") // a plain client has no frame for it
	right.Expect("counterpart_left")
	if after := b.json(ws.Left, "p", me).ExpectPaired(); after.UniqueID != before.UniqueID {
		t.Errorf("%s, not %s", after.UniqueID, before.UniqueID)
	}
}

// The store loses the pair while it is in use: both sides pair anew.
func TestPairHashDeleted(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		left, right := a.json(ws.Left, "p", w.login("1")), b.json(ws.Right, "p", w.login("2"))
		before := left.ExpectPaired()
		right.ExpectPaired()
		left.SendMessage("", "x")
		left.ExpectMessage()
		if err := w.redis.Del(t.Context(), "tandem:pair:{pair:p}").Err(); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*wstest.Client{left, right} {
			c.Expect("counterpart_left")
		}
		l, r := left.ExpectPaired(), right.ExpectPaired()
		if l.UniqueID != r.UniqueID || l.UniqueID == before.UniqueID {
			t.Fatalf("%s, %s, before %s", l.UniqueID, r.UniqueID, before.UniqueID)
		}
		for i := range uint64(3) {
			right.SendMessage("", "y")
			if m := right.ExpectMessage(); m.Index != i {
				t.Errorf("index %d, not %d", m.Index, i)
			}
		}
	})
}

// A frame that comes when the pair is gone is answered in its next life.
func TestPairHashDeletedUnderMessages(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		left := a.plain(ws.Left, "p", w.login("1"))
		b.plain(ws.Right, "p", w.login("2"))
		seen := map[string]bool{}
		lives := map[string]bool{}
		for i := range 300 {
			if i%100 == 50 {
				if err := w.redis.Del(t.Context(), "tandem:pair:{pair:p}").Err(); err != nil {
					t.Fatal(err)
				}
			}
			left.SendText(fmt.Sprint(i))
			unique, index, message := split(t, left.Next())
			if message != fmt.Sprint(i) || seen[unique+index] {
				t.Fatalf("message %d: %s %s %s", i, unique, index, message)
			}
			seen[unique+index], lives[unique] = true, true
		}
		if len(lives) != 4 {
			t.Errorf("%d lives", len(lives))
		}
	})
}

func TestPairAbuse(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{change: func(c *ws.Config) {
		c.Documents.MaxMessage = 1000
		c.Limits.FramesPerSecond = 50
	}})
	me := w.login("1")
	binary := a.plain(ws.Left, "a", me)
	binary.SendRaw(websocket.BinaryMessage, []byte("x"))
	expectClose(t, binary, ws.CloseProtocol, "protocol abuse")
	garbled := a.plain(ws.Left, "b", me)
	garbled.SendRaw(websocket.TextMessage, []byte("\xff"))
	expectClose(t, garbled, ws.CloseProtocol, "protocol abuse")
	large := a.json(ws.Left, "c", me)
	large.SendMessage("", strings.Repeat("x", 1000))
	large.ExpectError("TOO_LARGE")
	expectClose(t, large, ws.CloseTooBig, "message too big")

	// Plain messages are held back to the rate, and all answered.
	fast := a.plain(ws.Left, "d", me)
	a.plain(ws.Right, "d", me)
	for i := range 130 {
		fast.SendText(fmt.Sprint(i))
	}
	for i := range 130 {
		if _, _, m := split(t, fast.Next()); m != fmt.Sprint(i) {
			t.Fatalf("%s, not %d", m, i)
		}
	}
	// In JSON they are refused.
	flood := a.json(ws.Left, "e", me)
	for range 130 {
		flood.SendMessage("m", 1)
	}
	if e := flood.ExpectError("RATE_LIMITED"); e.Re != "m" || e.RetryAfterMS == 0 {
		t.Errorf("%+v", e)
	}
}
