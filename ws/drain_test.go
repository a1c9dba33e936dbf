package ws_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestDrain(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) {
		cfg.Drain = ws.DrainConfig{Timeout: 10 * time.Second, Spread: 100 * time.Millisecond}
	})
	ada := w.login("7")
	polite, _ := r.join("d", ada)
	stays, _ := r.join("d", ada)
	connecting := r.dial("d", ada)

	drained := make(chan error, 1)
	go func() { drained <- r.hub.Drain(context.Background()) }()
	for _, c := range []*wstest.Client{polite, stays, connecting} {
		var reconnect struct {
			AfterMS int64 `json:"after_ms"`
		}
		c.Expect("reconnect").Decode(t, &reconnect)
		if reconnect.AfterMS < 0 || reconnect.AfterMS > 100 {
			t.Errorf("%+v", reconnect)
		}
	}
	if ack := stays.Operate("late", 1); ack.Seq != 1 {
		t.Errorf("%+v", ack)
	}
	res, _ := request(t, "GET", r.server.URL+"/ws/documents/d", "", upgradeHeader)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("upgrade while draining: %d", res.StatusCode)
	}
	polite.Close()
	expectClose(t, stays, ws.CloseRestart, "restart")
	expectClose(t, connecting, ws.CloseRestart, "restart")
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if err := r.hub.Drain(t.Context()); err != nil { // once more is harmless
		t.Error(err)
	}
}

func TestDrainEndsInTime(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil) // spread over 10 s
	c, _ := r.join("d", w.login("7"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c.Expect("reconnect")
		cancel()
	}()
	if err := r.hub.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	expectClose(t, c, ws.CloseRestart, "restart")
}
