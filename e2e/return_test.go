package e2e

import (
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// presenceOf waits for the presence frame that mentions a connection in one of its lists, and returns what it says of
// all: the lists by connection, and the reasons of those that left.
func (s *socket) presenceOf(connection, list string) (lists map[string]string, reason string) {
	s.t.Helper()
	s.wantThat("presence", func(f frame) bool {
		lists, reason = map[string]string{}, ""
		for _, name := range []string{"joined", "updated", "left"} {
			entries, _ := f.fields[name].([]any)
			for _, e := range entries {
				entry, _ := e.(map[string]any)
				id, _ := entry["connection_id"].(string)
				lists[id] = name
				if id == connection {
					reason, _ = entry["reason"].(string)
				}
			}
		}
		return lists[connection] == list
	})
	return lists, reason
}

// A page that is loaded again, on whichever replica, is not seen to leave and join; one that is closed is.
func TestReturnToAnotherReplica(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL()}), startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	visitor := newPerson(t)
	visitor.login(a.url, "ada") // another session
	witness := visitor.open(a.url, "d")

	join := func(p *person, base string) (*socket, string) {
		t.Helper()
		s, _ := p.dial(base, "/ws/documents/d", nil)
		id, _ := s.want("hello").fields["connection_id"].(string)
		s.send(map[string]any{"type": "authenticate"})
		s.send(map[string]any{"type": "join_document"})
		s.want("joined_document")
		witness.presenceOf(id, "joined")
		return s, id
	}
	say := func(s *socket, code int) {
		t.Helper()
		if err := s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	lost, lostID := join(ada, b.url)
	say(lost, websocket.CloseGoingAway)
	eventually(t, 15*time.Second, func() error {
		var open struct {
			Items []struct{ ID string }
		}
		b.adminJSON(http.MethodGet, "connections", nil, &open)
		for _, c := range open.Items {
			if c.ID == lostID {
				return errors.New("still connected")
			}
		}
		return nil
	})
	marker, _ := join(visitor, b.url) // told after the loss
	back := ada.authenticated(a.url, "d")
	back.send(map[string]any{"type": "join_document"})
	if present, _ := back.want("joined_document").fields["presence"].([]any); len(present) != 3 {
		t.Errorf("present: %v", present)
	}
	lists, reason := witness.presenceOf(lostID, "left")
	if len(lists) != 2 || reason != "replaced" {
		t.Errorf("%v for the reason %q", lists, reason)
	}
	say(marker, websocket.CloseNormalClosure)
	say(back, websocket.CloseNormalClosure)
	eventually(t, 15*time.Second, func() error {
		var document struct{ Members []any }
		a.adminJSON(http.MethodGet, "documents/d", nil, &document)
		if len(document.Members) != 1 {
			return errors.New("there are others than the witness")
		}
		return nil
	})
}

// Whoever the last replica to restart sent off is seen to return to another, although it has stopped by then.
func TestReturnAfterRestart(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	grace := "documents: {presence_grace: 30s}\n" // however long a process takes to end beside other tests
	a := startReplica(t, settings{redis: redis.URL(), more: grace + "drain: {spread: 100ms, timeout: 20s}\n"})
	b := startReplica(t, settings{redis: redis.URL(), more: grace})
	ada, visitor := newPerson(t), newPerson(t)
	ada.register(a.url, "ada")
	visitor.login(a.url, "ada") // another session
	witness := visitor.open(b.url, "d")
	told := ada.open(a.url, "d")
	witness.presenceOf(told.connection, "joined")
	a.signal(syscall.SIGTERM)
	told.want("reconnect")
	if err := told.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	<-a.done
	back := ada.open(b.url, "d")
	lists, reason := witness.presenceOf(told.connection, "left")
	if lists[back.connection] != "joined" || reason != "replaced" {
		t.Errorf("%v for the reason %q", lists, reason)
	}
}
