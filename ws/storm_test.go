package ws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// More upgrades than are taken on at a time are told when to come back; who
// does as told is let in.
func TestUpgradesArePaced(t *testing.T) {
	const rate, crowd = 10, 100
	inBubble(t, func(cfg *ws.Config) { cfg.Limits = ws.Limits{UpgradesPerSecond: rate} }, func(b *bubble) {
		try := func() (wait time.Duration) {
			t.Helper()
			_, res, err := wstest.TryDial(b.t, "ws://tandem.test/d", wstest.DialOptions{Dialer: &websocket.Dialer{NetDialContext: b.pipes.dial}})
			if err == nil {
				return 0
			}
			seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
			if res.StatusCode != http.StatusServiceUnavailable || seconds < 1 {
				t.Fatalf("%s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
			}
			return time.Duration(seconds) * time.Second
		}
		began := time.Now()
		back := map[time.Duration]int{} // from the beginning → how many come then
		in, open := 0, 0
		for range crowd {
			if wait := try(); wait > 0 {
				back[wait]++
			} else {
				in++
			}
		}
		if in != 2*rate {
			t.Errorf("%d were let in at once", in)
		}
		for at := time.Second; in < crowd && at < time.Minute; at += time.Second {
			time.Sleep(time.Until(began.Add(at)))
			open = 0
			for range back[at] {
				if wait := try(); wait > 0 {
					back[at+wait]++
				} else {
					open++
				}
			}
			if open > 2*rate {
				t.Errorf("%d in one second", open)
			}
			in += open
		}
		if took := time.Since(began); in != crowd || took > 3*crowd/rate*time.Second {
			t.Errorf("%d of %d were let in after %s", in, crowd, took)
		}
	})
}

// A client that is behind is closed when it has all that it waited for.
func TestDrainDeliversFirst(t *testing.T) {
	const operations = 300
	change := func(cfg *ws.Config) { cfg.Drain.Spread = time.Nanosecond }
	inBubble(t, change, func(b *bubble) {
		slow, publisher := b.raw(), b.join()
		for i := range operations {
			publisher.Operate(fmt.Sprint(i), i)
		}
		go func() { _ = b.hub.Drain(context.Background()) }()
		time.Sleep(2 * time.Second) // its time has come, and it has read nothing
		seen := 0
		for {
			_, data, err := slow.ReadMessage()
			var closed *websocket.CloseError
			if errors.As(err, &closed) {
				if seen != operations || closed.Code != int(ws.CloseRestart) {
					t.Errorf("closed with %d after %d operations", closed.Code, seen)
				}
				return
			}
			var f struct {
				Type string
				Seq  int
			}
			if err != nil || json.Unmarshal(data, &f) != nil {
				t.Fatalf("%q, %v", data, err)
			}
			if f.Type == "operation" {
				if seen++; f.Seq != seen {
					t.Fatalf("operation %d after %d", f.Seq, seen-1)
				}
			}
		}
	})
}

// A client that does not read at all does not hold up the drain.
func TestDrainWaitsForNobody(t *testing.T) {
	change := func(cfg *ws.Config) { cfg.Drain.Spread = time.Nanosecond }
	inBubble(t, change, func(b *bubble) {
		b.raw()
		publisher := b.join()
		for i := range 10 {
			publisher.Operate(fmt.Sprint(i), i)
		}
		began := time.Now()
		if err := b.hub.Drain(context.Background()); err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// Closes that many get at once come with a time to come back at, each with
// another.
func TestMassClosesTellWhenToComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		strike func(b *bubble)
		code   ws.CloseCode
		reason string
	}{
		"going away": {func(b *bubble) { go func() { _ = b.hub.Close() }() }, ws.CloseGoingAway, "going away"},
		"Redis away": {func(b *bubble) { b.hub.SetAvailable(false); time.Sleep(11 * time.Second) }, ws.CloseRedisAwayLong, "session not verified"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(b *bubble) {
				var clients []*wstest.Client
				for range 20 {
					clients = append(clients, b.dial())
				}
				c.strike(b)
				times := map[int64]bool{}
				for _, client := range clients {
					var f struct {
						AfterMS int64 `json:"after_ms"`
					}
					client.Expect("reconnect").Decode(t, &f)
					if f.AfterMS < 0 || f.AfterMS > 10_000 {
						t.Errorf("come back after %d ms", f.AfterMS)
					}
					times[f.AfterMS] = true
					expectClose(t, client, c.code, c.reason)
				}
				if len(times) < 10 {
					t.Errorf("20 come back at %d times", len(times))
				}
			})
		})
	}
}
