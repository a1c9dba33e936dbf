package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Whoever joins after somebody's joined_document finds them in its own, on whichever replica and however soon.
func TestJoinedHoldsEverybody(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL()}), startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	const rounds, members = 10, 6
	for round := range rounds {
		document := fmt.Sprintf("round-%d", round)
		var sockets []*socket
		for i := range members {
			sockets = append(sockets, ada.authenticated([]*replica{a, b}[i%2].url, document))
		}
		for i, s := range sockets {
			s.send(map[string]any{"type": "join_document"})
			f := s.want("joined_document")
			if present, _ := f.fields["presence"].([]any); len(present) != i+1 {
				t.Errorf("round %d: member %d is told of %d", round, i+1, len(present))
			}
		}
		for _, s := range sockets {
			s.conn.Close()
		}
	}
}

// A login gives the session a new ID between the writes of its sockets: neither waits for the other to pause.
func TestLoginBesideWritingSockets(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startReplica(t, settings{redis: redis.URL()}), startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(a.url, "ada")
	sockets := []*socket{ada.open(a.url, "d"), ada.open(b.url, "d")}

	done := make(chan struct{})
	written := make([]int, len(sockets))
	var writers sync.WaitGroup
	for n, s := range sockets {
		writers.Go(func() {
			pause := time.NewTicker(6 * time.Millisecond) // below the limit of frames
			defer pause.Stop()
			for i := 1; ; i++ {
				select {
				case <-done:
					return
				case <-pause.C:
				}
				s.send(map[string]any{"type": "session_set", "id": fmt.Sprint(i), "set": map[string]any{fmt.Sprintf("chat.%d", n): i}})
				written[n] = i
			}
		})
	}
	for range 5 {
		ada.login(a.url, "ada")
	}
	close(done)
	writers.Wait()
	for n, s := range sockets {
		s.wantThat("session", func(f frame) bool { return f.fields["re"] == fmt.Sprint(written[n]) })
	}
	for n, values := 0, ada.session(a.url).Values; n < len(sockets); n++ {
		if values[fmt.Sprintf("chat.%d", n)] != float64(written[n]) {
			t.Errorf("socket %d wrote %d last, the page shows %v", n, written[n], values[fmt.Sprintf("chat.%d", n)])
		}
	}
}
