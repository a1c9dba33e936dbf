package e2e

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// wantTurnedOut waits until a member is told that it is none any more, and why.
func (s *socket) wantTurnedOut(code string) {
	s.t.Helper()
	if f := s.wantError(code); f.fields["re"] != nil {
		s.t.Errorf("a reply: %s", f.raw)
	}
	s.want("left_document")
}

func (s *socket) wantRefusedJoin(code string) {
	s.t.Helper()
	s.send(map[string]any{"type": "join_document", "id": "refused"})
	if f := s.wantError(code); f.fields["re"] != "refused" {
		s.t.Errorf("not a reply: %s", f.raw)
	}
}

// The application lists in the session what its user may join, and changes the list while sockets are open.
func TestJoiningByAttribute(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	rule := settings{redis: redis.URL(), more: "documents: {authorize: {attribute: documents, write_attribute: documents.write}}\n"}
	a, b := startReplica(t, rule), startReplica(t, rule)
	ada := newPerson(t)
	ada.register(a.url, "ada")
	application, err := sessionstore.New(redis.Client(t), sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	grant := func(name string, patterns ...string) {
		t.Helper()
		_, err := application.Update(t.Context(), ada.cookies(a.url)[0].Value, func(s *sessionstore.Session) error { return s.Set(name, patterns) })
		if err != nil {
			t.Fatal(err)
		}
	}

	ada.authenticated(a.url, "team-1").wantRefusedJoin("FORBIDDEN")
	grant("documents", "team-*")
	onA, onB := ada.open(a.url, "team-1"), ada.open(b.url, "team-2")
	ada.authenticated(b.url, "other").wantRefusedJoin("FORBIDDEN")
	onA.send(map[string]any{"type": "operation", "id": "1", "payload": 1})
	onA.wantError("FORBIDDEN")
	grant("documents.write", "team-1")
	eventually(t, 15*time.Second, func() error { // the news has to arrive
		onA.send(map[string]any{"type": "operation", "id": "2", "payload": 1})
		for f := range onA.frames {
			switch {
			case f.fields["re"] != "2":
			case f.kind() == "ack":
				return nil
			default:
				return errors.New(f.raw)
			}
		}
		return errors.New("closed")
	})
	grant("documents", "team-2")
	onA.wantTurnedOut("FORBIDDEN")
	grant("documents")
	onB.wantTurnedOut("FORBIDDEN")
	grant("documents", "*")
	again := ada.open(b.url, "anything")
	again.send(map[string]any{"type": "ping"})
	again.want("pong")
}

// The application is asked, changes its mind, and is away.
func TestJoiningByCallback(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(http.StatusOK)
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if secret.Match(body) || secret.MatchString(r.Header.Get("Cookie")) {
			t.Error("the application was told a session ID")
		}
		if strings.Contains(string(body), `"document":"secret"`) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, `{"allow":true}`)
	}))
	t.Cleanup(application.Close)
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL(), more: "documents: {authorize: {url: '" + application.URL + "/may', cache: 1s}}\n"})
	ada := newPerson(t)
	ada.register(r.url, "ada")

	ada.authenticated(r.url, "secret").wantRefusedJoin("FORBIDDEN")
	s := ada.open(r.url, "open")
	s.operation("1", 1)
	status.Store(http.StatusForbidden)
	s.wantTurnedOut("FORBIDDEN")
	status.Store(http.StatusServiceUnavailable)
	fresh := ada.authenticated(r.url, "fresh")
	fresh.wantRefusedJoin("UNAVAILABLE")
	status.Store(http.StatusOK)
	fresh.send(map[string]any{"type": "join_document"})
	fresh.want("joined_document")
	status.Store(http.StatusServiceUnavailable)
	fresh.wantTurnedOut("UNAVAILABLE")
	if n := r.adminJSON(http.MethodPost, "documents/secret/operations", map[string]any{"id": "1", "payload": 1}, nil); n != http.StatusOK {
		t.Errorf("a backend was refused: %d", n)
	}
}
