package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// A replica that is cut off from Redis stands for one that died: its lease
// ends, its counterparts are told, its sides can be had. When it is back it
// finds that it lost them.
func TestPairDeadReplica(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{}), w.replica("b", pairOptions{})
		me, you := w.login("1"), w.login("2")
		dead := a.json(ws.Left, "p", me)
		right := b.json(ws.Right, "p", you)
		dead.ExpectPaired()
		before := right.ExpectPaired()
		alone := a.json(ws.Left, "alone", me)
		spared := a.json(ws.Left, "spared", me)

		b.refused(ws.Left, "alone", you, http.StatusConflict)
		a.link.Cut()
		right.Expect("counterpart_left")
		left := b.json(ws.Left, "p", you)
		if after := left.ExpectPaired(); after.UniqueID != before.UniqueID {
			t.Errorf("%s, not %s", after.UniqueID, before.UniqueID)
		}
		var taken *wstest.Client
		eventually(t, "the side of the dead replica to be free", func() bool {
			var err error
			taken, _, err = wstest.TryDialSide(t, b.url(ws.Left, "alone"), you.header(), true)
			return err == nil
		})
		a.link.Heal()
		expectClose(t, dead, ws.CloseSideTaken, "side taken")
		expectClose(t, alone, ws.CloseSideTaken, "side taken")
		b.json(ws.Right, "alone", you)
		taken.ExpectPaired()
		b.json(ws.Right, "spared", you).ExpectPaired()
		spared.ExpectPaired()
	})
}

// Hints were lost while a replica was cut off; all is made good after.
func TestPairMissedHints(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		a, b := w.replica("a", pairOptions{mode: ws.ModeRelay}), w.replica("b", pairOptions{mode: ws.ModeRelay})
		left, right := a.plain(ws.Left, "p", w.login("1")), b.plain(ws.Right, "p", w.login("2"))
		left.SendText("0")
		right.ExpectText("0")
		for i := range 20 {
			b.link.Cut()
			left.SendText(fmt.Sprint("while cut ", i))
			right.SendText(fmt.Sprint("kept ", i))
			b.link.Heal()
			right.ExpectText(fmt.Sprint("while cut ", i))
			left.ExpectText(fmt.Sprint("kept ", i))
		}
	})
}

// Redis goes away and comes back with nothing: what was not answered is.
func TestPairRedisRestarts(t *testing.T) {
	w := newPairWorld(t, redistest.Start(t))
	a, b := w.replica("a", pairOptions{public: true}), w.replica("b", pairOptions{public: true})
	left, right := a.json(ws.Left, "p", nil), b.json(ws.Right, "p", nil)
	before := left.ExpectPaired()
	right.ExpectPaired()
	w.server.Stop()
	left.SendMessage("", "kept")
	w.server.Restart()
	left.Expect("counterpart_left")
	for {
		m := left.Next()
		if m.Type == "paired" || m.Type == "counterpart_left" {
			continue
		}
		var got wstest.Message
		m.Decode(t, &got)
		if got.Data != "kept" || got.Index != 0 {
			t.Errorf("%s, before it %s", m.Raw, before.UniqueID)
		}
		return
	}
}

// Replies that are lost leave open whether a message was numbered: it is not
// numbered twice.
func TestPairLostReplies(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		for _, mode := range []ws.PairMode{ws.ModeEcho, ws.ModeRelay} {
			pair := string(mode)
			a, b := w.replica("a", pairOptions{mode: mode}), w.replica("b", pairOptions{mode: mode})
			left, right := a.plain(ws.Left, pair, w.login("1")), b.plain(ws.Right, pair, w.login("2"))
			left.SendText("warm up")
			receiver := left
			if mode == ws.ModeRelay {
				receiver = right
			}
			receiver.Next()
			for i := range 30 {
				a.link.DropReplies(1)
				left.SendText(fmt.Sprint(i))
				want := fmt.Sprint(i)
				if f := receiver.Next(); mode == ws.ModeRelay {
					if string(f.Raw) != want {
						t.Fatalf("%s, not %s", f.Raw, want)
					}
				} else if _, index, m := split(t, f); m != want || index != fmt.Sprint(i+1) {
					t.Fatalf("%s, not %s", f.Raw, want)
				}
			}
		}
	})
}

// However many come for one side at once, over two replicas: one gets it.
func TestPairRaces(t *testing.T) {
	races := 500
	if testing.Short() {
		races = 20
	}
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		replicas := []*pairReplica{w.replica("a", pairOptions{}), w.replica("b", pairOptions{})}
		cookies := []*cookie{w.login("1"), w.login("2")}
		for race := range races {
			var won, refused atomic.Int32
			var both sync.WaitGroup
			conns := make([]*websocket.Conn, 2)
			for i, r := range replicas {
				both.Go(func() {
					url := "ws" + r.url(ws.Left, fmt.Sprint("race", race))[len("http"):]
					conn, response, err := (&websocket.Dialer{}).DialContext(context.Background(), url, cookies[i].header())
					switch {
					case err == nil:
						conns[i] = conn
						won.Add(1)
					case response != nil && response.StatusCode == http.StatusConflict:
						refused.Add(1)
					default:
						t.Errorf("%v", err)
					}
				})
			}
			both.Wait()
			if won.Load() != 1 || refused.Load() != 1 {
				t.Fatalf("race %d: %d won, %d were refused", race, won.Load(), refused.Load())
			}
			for _, c := range conns {
				if c != nil {
					_ = c.Close()
				}
			}
		}
	})
}

// A client that is full of early messages, and one whose counterpart is, end
// with the drain all the same.
func TestPairEndsWhileFull(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{change: func(c *ws.Config) { c.Drain.Spread = time.Millisecond; c.Limits.FramesPerSecond = 0 }})
	conn, _ := dialRaw(t, a.url(ws.Left, "p"), w.login("1"))
	full := make(chan struct{})
	go func() {
		defer close(full)
		for {
			_ = conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if conn.WriteMessage(websocket.TextMessage, make([]byte, 10<<10)) != nil {
				return // nobody reads any more
			}
		}
	}()
	<-full
	if err := a.hub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A client whose early messages fill all there is, and that goes, is not heard
// as nothing is read; a ping that it does not take shows it.
func TestPairGoneWhileFull(t *testing.T) {
	w := newPairWorld(t, redistest.Mini(t))
	a := w.replica("a", pairOptions{change: func(c *ws.Config) { c.Heartbeat = 100 * time.Millisecond; c.Limits.FramesPerSecond = 0 }})
	conn, _ := dialRaw(t, a.url(ws.Left, "p"), w.login("1"))
	for conn.SetWriteDeadline(time.Now().Add(300*time.Millisecond)) == nil {
		if conn.WriteMessage(websocket.TextMessage, make([]byte, 10<<10)) != nil {
			break // nobody reads any more
		}
	}
	a.refused(ws.Left, "p", w.login("2"), http.StatusConflict)
	_ = conn.Close()
	eventually(t, "the connection to be missed", func() bool { return len(a.hub.Connections()) == 0 })
	a.plain(ws.Left, "p", w.login("2"))
}

// A post whose reply was lost, to a counterpart who left meanwhile: it has been
// posted and was not taken, and the sender is told so.
func TestPairLostReplyAndCounterpart(t *testing.T) {
	eachPairWorld(t, func(t *testing.T, w *pairWorld) {
		plane := &forgetfulPlane{}
		a := w.replica("a", pairOptions{mode: ws.ModeRelay, wrap: func(p ws.PairPlane) ws.PairPlane { plane.PairPlane = p; return plane }})
		b := w.replica("b", pairOptions{mode: ws.ModeRelay})
		you := w.login("2")
		right, _ := dialRaw(t, b.url(ws.Right, "p"), you) // takes nothing: b is cut off
		left := a.json(ws.Left, "p", w.login("1"))
		left.ExpectPaired()
		b.link.Blackhole(true)
		plane.after = func() {
			_ = right.Close()
			eventually(t, "the counterpart's lease to end and its side to be free", func() bool {
				free, err := w.redis.HExists(context.Background(), "tandem:pair:{pair:p}", "right").Result()
				return err == nil && !free
			})
		}
		left.SendMessage("lost", "lost")
		e := left.ExpectError("UNAVAILABLE")
		left.Expect("counterpart_left")
		b.link.Blackhole(false)
		again := a.json(ws.Right, "p", you)
		left.ExpectPaired()
		left.SendMessage("", "next")
		if m := again.ExpectMessage(); m.Data != "next" {
			t.Errorf("got %v after %+v", m.Data, e)
		}
	})
}

// forgetfulPlane loses the reply to the first post, and runs after before the
// caller learns of it.
type forgetfulPlane struct {
	ws.PairPlane
	after func()
	once  sync.Once
}

func (p *forgetfulPlane) Claim(ctx context.Context, seat ws.PairSeat, l ws.PairListener) (ws.PairClaim, error) {
	c, err := p.PairPlane.Claim(ctx, seat, l)
	if err != nil || seat.Side != ws.Left {
		return c, err
	}
	return &forgetfulClaim{c, p}, nil
}

type forgetfulClaim struct {
	ws.PairClaim
	plane *forgetfulPlane
}

func (c *forgetfulClaim) Post(ctx context.Context, p ws.PairPost) (r ws.PairReceipt, ok bool, err error) {
	r, ok, err = c.PairClaim.Post(ctx, p)
	c.plane.once.Do(func() {
		c.plane.after()
		r, ok, err = ws.PairReceipt{}, false, ws.ErrUnavailable
	})
	return r, ok, err
}
