package ws_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
)

func TestFromHelloToClose(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")

	c := r.dial("d", ada)
	if n, _ := r.hub.Counts(); n != 1 {
		t.Errorf("%d connections before authentication, not 1", n)
	}
	if info := r.hub.Connections()[0]; info.State != "connecting" || info.Document != "d" || info.ID != c.ID || info.Route != "/ws/documents/" {
		t.Errorf("listed as %+v", info)
	}

	var result struct {
		OK      bool
		User    struct{ ID, Name string }
		Session struct {
			Handle    string
			ExpiresAt time.Time `json:"expires_at"`
		}
		Color string
	}
	c.Authenticate().Decode(t, &result)
	if result.User.ID != "7" || result.User.Name != "name of 7" || result.Session.Handle != ada.handle || time.Until(result.Session.ExpiresAt) < time.Hour {
		t.Errorf("auth_result: %+v", result)
	}
	if !regexp.MustCompile(`^#[0-9a-f]{6}$`).MatchString(result.Color) {
		t.Errorf("color %q", result.Color)
	}
	if n := r.hub.CountBySession(ada.handle); n != 1 {
		t.Errorf("the session has %d sockets, not 1", n)
	}

	joined := c.Join(nil)
	if joined.Document != "d" || joined.Epoch == "" || joined.Seq != 0 || joined.Snapshot != nil || joined.Entries == nil {
		t.Errorf("joined_document: %+v", joined)
	}
	if len(joined.Presence) != 1 || joined.Presence[0].ConnectionID != c.ID || joined.Presence[0].Color != result.Color {
		t.Errorf("presence: %+v", joined.Presence)
	}
	if info := r.hub.Connections()[0]; info.State != "joined" || info.User != "7" || info.Session != ada.handle || info.BytesIn == 0 || info.BytesOut == 0 {
		t.Errorf("listed as %+v", info)
	}
	c.SendText(`{"type":"leave_document","id":"bye"}`)
	if f := c.ExpectReply("bye"); f.Type != "left_document" {
		t.Errorf("%s", f.Raw)
	}
	c.SendText(`{"type":"ping","id":"p"}`)
	if f := c.ExpectReply("p"); f.Type != "pong" {
		t.Errorf("%s", f.Raw)
	}
	c.Close()
	eventually(t, "the connection to be forgotten", func() bool { n, _ := r.hub.Counts(); return n == 0 })
	if _, peak := r.hub.Counts(); peak != 1 {
		t.Errorf("peak %d", peak)
	}
	if n := r.hub.CountBySession(ada.handle); n != 0 {
		t.Errorf("the session has %d sockets, not 0", n)
	}
}

func TestNothingBeforeAuthentication(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c := r.dial("d", w.login("7"))
	for _, kind := range []string{
		"ping", "join_document", "leave_document", "operation", "presence", "sync_request", "snapshot",
		"session_get", "session_set", "no such type",
	} {
		c.Send(map[string]any{"type": kind, "id": kind, "payload": 1, "state": 1})
		if e := c.ExpectError("AUTH_REQUIRED"); e.Re != kind {
			t.Errorf("%s: %+v", kind, e)
		}
	}
	c.Authenticate() // the connection is still good
	c.Authenticate() // and once more is harmless
}

func TestAuthenticationFails(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	anonymous := w.factory.New()
	if err := anonymous.Set("chat.name", "x"); err != nil {
		t.Fatal(err)
	}
	if err := anonymous.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := func(reason sessionstore.Reason) *cookie {
		c := w.login("7")
		if err := w.factory.End(t.Context(), c.id, reason); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, test := range []struct {
		name   string
		cookie *cookie
		frame  string
		reason string
	}{
		{"no cookie", nil, `{"type":"authenticate"}`, "login required"},
		{"unknown session", &cookie{id: sessionstore.NewID()}, `{"type":"authenticate"}`, "login required"},
		{"malformed cookie", &cookie{id: "x"}, `{"type":"authenticate"}`, "login required"},
		{"anonymous", &cookie{id: anonymous.ID()}, `{"type":"authenticate"}`, "login required"},
		{"unknown ticket", w.login("7"), `{"type":"authenticate","ticket":"nonsense"}`, "login required"},
		{"logged out", ended(sessionstore.ReasonLogout), `{"type":"authenticate"}`, "logout"},
		{"revoked", ended(sessionstore.ReasonRevoked), `{"type":"authenticate"}`, "revoked"},
		{"expired", ended(sessionstore.ReasonExpired), `{"type":"authenticate"}`, "expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := r.dial("d", test.cookie)
			c.SendText(test.frame)
			var result struct {
				OK   bool
				Code string
			}
			c.Expect("auth_result").Decode(t, &result)
			if result.OK || result.Code != "AUTH_REQUIRED" {
				t.Errorf("%+v", result)
			}
			expectClose(t, c, ws.CloseUnauthorized, test.reason)
		})
	}
}

func TestTicket(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	s, err := w.factory.Load(t.Context(), w.login("7").id)
	if err != nil {
		t.Fatal(err)
	}
	ticket, _, err := w.factory.IssueTicket(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c := r.dial("d", nil)
	c.Send(map[string]any{"type": "authenticate", "ticket": ticket})
	if f := c.Expect("auth_result"); !strings.Contains(string(f.Raw), `"ok":true`) {
		t.Fatalf("%s", f.Raw)
	}
	again := r.dial("d", nil)
	again.Send(map[string]any{"type": "authenticate", "ticket": ticket})
	expectClose(t, again, ws.CloseUnauthorized, "login required")
}

func TestAuthenticationTimesOut(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Documents.AuthTimeout = 30 * time.Millisecond })
	expectClose(t, r.dial("d", w.login("7")), ws.CloseAuthTimeout, "authentication timed out")
}

func TestUndecodableSessionIsForbidden(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) {
		cfg.Bind = bindError(sessionstore.ErrUndecodable)
	})
	c := r.dial("d", w.login("7"))
	c.SendText(`{"type":"authenticate"}`)
	if f := c.Expect("auth_result"); !strings.Contains(string(f.Raw), "FORBIDDEN") {
		t.Errorf("%s", f.Raw)
	}
	expectClose(t, c, ws.CloseForbidden, "session cannot be read")
}

func TestAuthenticationWithoutRedis(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Bind = bindError(sessionstore.ErrUnavailable) })
	c := r.dial("d", w.login("7"))
	c.SendText(`{"type":"authenticate","id":"a"}`)
	if e := c.ExpectError("UNAVAILABLE"); e.Re != "a" || e.RetryAfterMS <= 0 {
		t.Errorf("%+v", e)
	}
	c.SendText(`{"type":"ping"}`)
	c.ExpectError("AUTH_REQUIRED") // it is still connecting
}

func TestBadFrames(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	long := strings.Repeat("x", 65)
	for _, test := range []struct{ frame, code, re, says string }{
		{`garbage`, "BAD_MESSAGE", "", "JSON"},
		{``, "BAD_MESSAGE", "", "JSON"},
		{`[]`, "BAD_MESSAGE", "", "object"},
		{`null`, "BAD_MESSAGE", "", "object"},
		{`{"type":"ping"} {}`, "BAD_MESSAGE", "", "one JSON object"},
		{"{\"type\":\"ping\",\"id\":\"\xff\"}", "BAD_MESSAGE", "", "UTF-8"},
		{`{}`, "BAD_MESSAGE", "", "type"},
		{`{"type":1,"id":"a"}`, "BAD_MESSAGE", "a", "type"},
		{`{"type":"ping","id":1}`, "BAD_MESSAGE", "", "id"},
		{`{"TYPE":"ping","id":"a"}`, "BAD_MESSAGE", "a", "type"},
		{`{"type":"ping","id":"` + long + `"}`, "BAD_MESSAGE", "", "64"},
		{`{"type":"ping","x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "BAD_MESSAGE", "", "deeper"},
		{`{"type":"nonsense","id":"a"}`, "UNKNOWN_TYPE", "a", "nonsense"},
		{`{"type":"operation","payload":1}`, "BAD_MESSAGE", "", "id"},
		{`{"type":"operation","id":"a"}`, "BAD_MESSAGE", "a", "payload"},
		{`{"type":"presence","id":"a"}`, "BAD_MESSAGE", "a", "state"},
		{`{"type":"presence","id":"a","state":"` + strings.Repeat("x", 5000) + `"}`, "TOO_LARGE", "a", "4096"},
		{`{"type":"snapshot","id":"a","payload":1}`, "BAD_MESSAGE", "a", "seq"},
		{`{"type":"snapshot","id":"a","seq":-1,"payload":1}`, "BAD_MESSAGE", "a", "seq"},
		{`{"type":"snapshot","id":"a","seq":99,"payload":1}`, "CONFLICT", "a", "head"},
		{`{"type":"join_document","id":"a"}`, "ALREADY_JOINED", "a", "joined"},
		{`{"type":"sync_request","id":"a","since":7}`, "BAD_MESSAGE", "a", "since"},
		{`{"type":"session_get","id":"a","keys":"x"}`, "BAD_MESSAGE", "a", "keys"},
		{`{"type":"session_set","id":"a","set":[]}`, "BAD_MESSAGE", "a", "set"},
		{`{"type":"session_set","id":"a","set":{"user.name":"eve"}}`, "FORBIDDEN", "a", "user.name"},
		{`{"type":"session_set","id":"a","set":{"chat.name":1,"tandem.sid":"x"}}`, "FORBIDDEN", "a", "tandem.sid"},
		{`{"type":"session_set","id":"a","delete":["secret"]}`, "FORBIDDEN", "a", "secret"},
	} {
		c.SendText(test.frame)
		e := c.ExpectError(test.code)
		if e.Re != test.re || !strings.Contains(e.Message, test.says) {
			t.Errorf("%.80s: %+v", test.frame, e)
		}
	}
	c.SendRaw(websocket.BinaryMessage, []byte(`{"type":"ping"}`))
	c.ExpectError("BAD_MESSAGE")
	c.SendText(`{"type":"ping","id":"still here","unknown":{"field":1},"ID":"unknown too"}`)
	c.ExpectReply("still here")
}

func TestNotJoined(t *testing.T) {
	w := newWorld(t)
	c := w.replica(nil).open("d", w.login("7"))
	for _, kind := range []string{"leave_document", "operation", "presence", "sync_request", "snapshot"} {
		c.Send(map[string]any{"type": kind, "id": kind, "payload": 1, "state": 1, "seq": 1})
		if e := c.ExpectError("NOT_JOINED"); e.Re != kind {
			t.Errorf("%s: %+v", kind, e)
		}
	}
}

func TestTooLarge(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Documents.MaxMessage = 1000 })
	c, _ := r.join("d", w.login("7"))
	payload := strings.Repeat("x", 1000-len(`{"type":"operation","id":"a","payload":""}`))
	c.SendText(`{"type":"operation","id":"a","payload":"` + payload + `"}`)
	c.ExpectReply("a") // the limit itself is allowed
	c.SendText(`{"type":"operation","id":"b","payload":"` + payload + `x"}`)
	c.ExpectError("TOO_LARGE")
	expectClose(t, c, ws.CloseTooBig, "message too big")
}

func TestProtocolAbuse(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c := r.open("d", w.login("7"))
	for range 99 {
		c.SendText("garbage")
	}
	c.SendText(`{"type":"ping"}`)
	c.Expect("pong")
	c.SendText(`{"type":"session_get"}`) // a good frame wipes the slate
	c.Expect("session")
	for range 100 {
		c.SendText("garbage")
	}
	expectClose(t, c, ws.CloseProtocol, "protocol abuse")
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Limits.OperationsPerSecond = 2 })
	c, _ := r.join("d", w.login("7"))
	for i := range 6 {
		c.SendOperation(string(rune('a'+i)), i)
	}
	c.ExpectReply("d") // the burst
	if e := c.ExpectError("RATE_LIMITED"); e.Re != "e" || e.RetryAfterMS <= 0 || e.RetryAfterMS > 1000 {
		t.Errorf("%+v", e)
	}
	c.SendText(`{"type":"ping"}`) // other frames are not operations
	c.Expect("pong")
}

// The connections of one user share a rate; others are not held back by it.
func TestRateLimitOfAUser(t *testing.T) {
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Limits.OperationsPerUser = 1 })
	ada := w.login("7")
	one, _ := r.join("d", ada)
	two, _ := r.join("d", ada)
	bob, _ := r.join("d", w.login("8"))
	for _, id := range []string{"a", "b"} { // the burst
		one.SendOperation(id, 1)
		one.ExpectReply(id)
	}
	two.SendOperation("c", 1)
	if e := two.ExpectError("RATE_LIMITED"); e.Re != "c" || e.RetryAfterMS <= 0 || e.RetryAfterMS > 1000 {
		t.Errorf("%+v", e)
	}
	bob.SendOperation("c", 1)
	bob.ExpectReply("c")
}

func TestClosedByPeerAndLost(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	watcher, _ := r.join("d", ada)
	gone, _ := r.join("d", ada)
	gone.Cut()
	watcher.ExpectPresence("the lost one left", left(gone.ID, "closed"))
	polite, _ := r.join("d", ada)
	polite.Close()
	watcher.ExpectPresence("the polite one left", left(polite.ID, "closed"))
	eventually(t, "one connection", func() bool { n, _ := r.hub.Counts(); return n == 1 })
}

func TestOperationsBeforeCloseAreKept(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c, _ := r.join("d", ada)
	for i := range 20 {
		c.SendOperation(string(rune('a'+i)), i)
	}
	c.Close()
	watcher, _ := r.join("d", ada)
	_ = watcher
	eventually(t, "all operations in the log", func() bool {
		h, err := r.backplane.History(t.Context(), "d", nil, 1)
		return err == nil && h.Head == 20
	})
}

func TestHubClose(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	if err := r.hub.Close(); err != nil {
		t.Fatal(err)
	}
	expectClose(t, c, ws.CloseGoingAway, "going away")
	if members, err := r.backplane.Members(t.Context(), "d"); err != nil || len(members) != 0 {
		t.Errorf("present after the end: %v, %v", members, err)
	}
}

func TestReadersAndMetricsShowNoSessionID(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c, joined := r.join("d", ada)
	shown, err := json.Marshal([]any{r.hub.Connections(), joined})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Received() {
		shown = append(shown, f.Raw...)
	}
	if strings.Contains(string(shown), ada.id) {
		t.Error("the session ID is shown")
	}
}

// Machines read the log: a line that says a key twice means different things
// to different readers.
func TestLogSaysEachKeyOnce(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t)
	r := w.replica(func(cfg *ws.Config) { cfg.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	c, _ := r.join("d", w.login("7"))
	c.Cut()
	eventually(t, "the socket to be gone", func() bool { n, _ := r.hub.Counts(); return n == 0 })
	if err := r.hub.Close(); err != nil { // nothing logs any more
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), `"session":`) {
		t.Error("no line names the session")
	}
	for line := range strings.Lines(log.String()) {
		for _, key := range []string{"session", "user", "conn", "document", "reason"} {
			if n := strings.Count(line, `"`+key+`":`); n > 1 {
				t.Errorf("%s stands %d times in %s", key, n, line)
			}
		}
	}
}
