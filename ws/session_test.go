package ws_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func bindError(err error) func(context.Context, string, sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
	return func(context.Context, string, sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
		return nil, nil, err
	}
}

type values struct {
	Values map[string]json.RawMessage
	Set    map[string]json.RawMessage
	Delete []string
}

func decode(t *testing.T, f wstest.Frame) values {
	t.Helper()
	var v values
	f.Decode(t, &v)
	return v
}

func TestSessionGetAndSet(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c := r.open("d", ada)
	other := r.open("elsewhere", ada)
	stranger := r.open("d", w.login("8"))

	c.SendText(`{"type":"session_get","id":"all"}`)
	if v := decode(t, c.ExpectReply("all")).Values; len(v) != 2 || string(v["chat.name"]) != `"7"` || string(v["user.name"]) != `"name of 7"` {
		t.Errorf("%s", v)
	}
	c.SendText(`{"type":"session_get","id":"some","keys":["chat.name","secret","user.id","nonsense"]}`)
	if v := decode(t, c.ExpectReply("some")).Values; len(v) != 1 || string(v["chat.name"]) != `"7"` {
		t.Errorf("%s", v)
	}

	c.SendText(`{"type":"session_set","id":"set","set":{"chat.name":"Ada","chat.big":9007199254740993},"delete":["chat.none"]}`)
	if v := decode(t, c.ExpectReply("set")).Values; len(v) != 3 || string(v["chat.name"]) != `"Ada"` || string(v["chat.big"]) != `9007199254740993` {
		t.Errorf("%s", v)
	}
	if v := decode(t, other.Expect("session_changed")); len(v.Set) != 2 || string(v.Set["chat.name"]) != `"Ada"` || v.Delete == nil {
		t.Errorf("%+v", v)
	}
	s, err := w.factory.Load(t.Context(), ada.id)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := s.JSON("chat.name"); string(v) != `"Ada"` {
		t.Errorf("stored %s", v)
	}

	// A page writes: both sockets are told. Before that nothing came to the
	// socket that wrote.
	if _, err := w.factory.Update(t.Context(), ada.id, func(s *sessionstore.Session) error {
		_ = s.Set("secret", "y")
		_ = s.Set("chat.page", true)
		return s.Delete("chat.big")
	}); err != nil {
		t.Fatal(err)
	}
	for _, each := range []*wstest.Client{c, other} {
		v := decode(t, each.Expect("session_changed"))
		if len(v.Set) != 1 || string(v.Set["chat.page"]) != "true" || len(v.Delete) != 1 || v.Delete[0] != "chat.big" {
			t.Errorf("%+v", v)
		}
	}
	stranger.SendText(`{"type":"ping"}`)
	stranger.Expect("pong")
	if frames := stranger.Received(); len(frames) > 0 {
		t.Errorf("another session was told: %s", frames[0].Raw)
	}
}

func TestForbiddenWriteWritesNothing(t *testing.T) {
	w := newWorld(t)
	ada := w.login("7")
	c := w.replica(nil).open("d", ada)
	c.SendText(`{"type":"session_set","set":{"chat.name":"new","user.id":"1"}}`)
	c.ExpectError("FORBIDDEN")
	c.SendText(`{"type":"session_get"}`)
	if v := decode(t, c.Expect("session")).Values; string(v["chat.name"]) != `"7"` {
		t.Errorf("%s", v)
	}
}

// What can never be stored is the client's mistake, and nothing to send again.
func TestValueThatNoSessionHolds(t *testing.T) {
	w := newWorld(t)
	ada := w.login("7")
	c := w.replica(nil).open("d", ada)
	for _, change := range []string{
		`"set":{"chat.name":[1e999]}`, `"set":{"chat.name":"\ud83d"}`, `"set":{"chat.name":"new"},"delete":["chat.name"]`,
	} {
		c.SendText(`{"type":"session_set","id":"x",` + change + `}`)
		if e := c.ExpectError("BAD_MESSAGE"); e.Re != "x" || !strings.Contains(e.Message, "nothing was written") {
			t.Errorf("%s: %+v", change, e)
		}
	}
	c.SendText(`{"type":"session_get"}`)
	if v := decode(t, c.Expect("session")).Values; string(v["chat.name"]) != `"7"` {
		t.Errorf("%s", v)
	}
}

func TestTooLargeForTheSession(t *testing.T) {
	w := newWorld(t)
	c := w.replica(func(cfg *ws.Config) { cfg.Documents.MaxMessage = 1 << 20 }).open("d", w.login("7"))
	c.Send(map[string]any{"type": "session_set", "id": "x", "set": map[string]string{"chat.name": strings.Repeat("x", 70<<10)}})
	if e := c.ExpectError("TOO_LARGE"); e.Re != "x" {
		t.Errorf("%+v", e)
	}
}

func TestEndOfSessionClosesItsSockets(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	for _, reason := range []sessionstore.Reason{sessionstore.ReasonLogout, sessionstore.ReasonRevoked, sessionstore.ReasonExpired} {
		ada := w.login("7")
		witness, _ := a.join("d", w.login("8"))
		onA, _ := a.join("d", ada)
		onB, _ := b.join("d", ada)
		if err := w.factory.End(t.Context(), ada.id, reason); err != nil {
			t.Fatal(err)
		}
		expectClose(t, onA, ws.CloseUnauthorized, string(reason))
		expectClose(t, onB, ws.CloseUnauthorized, string(reason))
		witness.ExpectPresence("left with the session", left(onB.ID, "session"))
		witness.Cut()
	}
}

func TestSessionGone(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c := r.open("d", ada)
	w.forget(ada.id)
	expectClose(t, c, ws.CloseUnauthorized, "gone")
}

// catchListener catches the listener that a connection binds, to play the
// watcher's part.
func catchListener(w *world, caught chan sessionstore.Listener) func(*ws.Config) {
	return func(cfg *ws.Config) {
		bind := cfg.Bind
		cfg.Bind = func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			caught <- l
			return bind(ctx, id, l)
		}
	}
}

func TestWhatTheWatcherSays(t *testing.T) {
	w := newWorld(t)
	caught := make(chan sessionstore.Listener, 1)
	r := w.replica(catchListener(w, caught))
	c := r.open("d", w.login("7"))
	l := <-caught
	l.SessionRotated()
	c.Expect("renew")
	l.SessionExpiring(60e9)
	var expiring struct {
		InMS int64 `json:"in_ms"`
	}
	c.Expect("session_expiring").Decode(t, &expiring)
	if expiring.InMS < 50_000 || expiring.InMS > 60_000 {
		t.Errorf("%+v", expiring)
	}
	l.SessionUnverified()
	expectClose(t, c, ws.CloseRedisAwayLong, "session not verified")
	l.SessionChanged(snapshotOfSeven(t, w)) // late calls are harmless
	l.SessionEnded(sessionstore.ReasonLogout)
}

func snapshotOfSeven(t *testing.T, w *world) *sessionstore.Snapshot {
	t.Helper()
	s, err := w.factory.Load(t.Context(), w.login("7").id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Snapshot()
}

func TestSessionOfSomebodyElse(t *testing.T) {
	w := newWorld(t)
	caught := make(chan sessionstore.Listener, 1)
	r := w.replica(catchListener(w, caught))
	c := r.open("d", w.login("8"))
	(<-caught).SessionChanged(snapshotOfSeven(t, w))
	expectClose(t, c, ws.CloseUnauthorized, "logout")
}

func TestRotationKeepsTheSocket(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c := r.open("d", ada)
	s, err := w.factory.Load(t.Context(), ada.id)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c.Expect("renew")
	c.SendText(`{"type":"session_set","id":"set","set":{"chat.name":"new"}}`)
	if v := decode(t, c.ExpectReply("set")).Values; string(v["chat.name"]) != `"new"` {
		t.Errorf("%s", v)
	}
	if err := w.factory.End(t.Context(), s.ID(), sessionstore.ReasonLogout); err != nil {
		t.Fatal(err)
	}
	expectClose(t, c, ws.CloseUnauthorized, "logout")
}

// Asking for one attribute does not hide that another has changed.
func TestGetOfSomeKeysKeepsNewsOfOthers(t *testing.T) {
	w := newWorld(t)
	caught := make(chan sessionstore.Listener, 1)
	r := w.replica(func(cfg *ws.Config) {
		bind := cfg.Bind
		cfg.Bind = func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			caught <- l
			return bind(ctx, id, deaf{l})
		}
	})
	ada := w.login("7")
	c := r.open("d", ada)
	s, err := w.factory.Update(t.Context(), ada.id, func(s *sessionstore.Session) error { return s.Set("chat.other", 1) })
	if err != nil {
		t.Fatal(err)
	}
	c.SendText(`{"type":"session_get","id":"x","keys":["chat.name"]}`)
	c.ExpectReply("x")
	(<-caught).SessionChanged(s.Snapshot()) // the news comes late
	if v := decode(t, c.Expect("session_changed")); string(v.Set["chat.other"]) != "1" {
		t.Errorf("%+v", v)
	}
}

// deaf is a listener that hears of no change by itself.
type deaf struct{ sessionstore.Listener }

func (deaf) SessionChanged(*sessionstore.Snapshot) {}
