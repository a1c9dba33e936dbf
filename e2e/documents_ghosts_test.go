package e2e

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A replica with many members dies. Every other client, on whichever replica, hears within 15 s that they left: of each
// once, although every replica that lives looks for them.
func TestGhosts(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), more: "limits: {connections_per_session: 0, connections_per_user: 0}\n"}
	dying, b, c := startReplica(t, s), startReplica(t, s), startReplica(t, s)
	ada := newPerson(t)
	ada.register(b.url, "ada")
	ghosts := map[string]bool{}
	for range documentSizes.ghosts {
		m := ada.authenticated(dying.url, "ghosts")
		ghosts[m.connection] = true
		m.send(map[string]any{"type": "join_document"})
		m.want("joined_document")
	}
	var watchers []*socket
	for i := range 6 {
		w := ada.authenticated([]*replica{b, c}[i%2].url, "ghosts")
		w.send(map[string]any{"type": "join_document"})
		if present, _ := w.want("joined_document").fields["presence"].([]any); len(present) != len(ghosts)+i+1 {
			t.Fatalf("%d present, want %d", len(present), len(ghosts)+i+1)
		}
		watchers = append(watchers, w)
	}

	killed := time.Now()
	dying.kill()
	took := make([]time.Duration, len(watchers))
	var g errgroup.Group
	for i, w := range watchers {
		g.Go(func() (err error) {
			took[i], err = w.seeOff(ghosts, killed)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d ghosts gone after %s", len(ghosts), percentiles(took))
	if late := took[len(took)-1]; late > 15*time.Second { // percentiles has sorted them
		t.Errorf("the last ghost stayed for %v", late)
	}
	for _, w := range watchers { // nothing is left to be told twice
		if again := w.present(); again != len(watchers) {
			t.Errorf("%d present", again)
		}
	}
}

// seeOff waits until all of them were told to have left, and a little longer, for each to be told but once. It returns
// when the last was.
func (s *socket) seeOff(members map[string]bool, since time.Time) (last time.Duration, err error) {
	left := map[string]bool{}
	timeout := time.After(40 * time.Second)
	for {
		select {
		case <-timeout:
			if len(left) == len(members) {
				return last, nil
			}
			return 0, fmt.Errorf("%d of %d have left", len(left), len(members))
		case f, ok := <-s.frames:
			if !ok {
				return 0, errClosed
			}
			gone, _ := f.fields["left"].([]any)
			for _, m := range gone {
				member, _ := m.(map[string]any)
				id, _ := member["connection_id"].(string)
				if !members[id] || left[id] || member["reason"] != "replica" {
					return 0, fmt.Errorf("told that %v left, who had left before: %v", member, left[id])
				}
				left[id] = true
			}
			if len(gone) > 0 && len(left) == len(members) {
				last = time.Since(since)
				timeout = time.After(4 * time.Second) // another tick of every replica
			}
		}
	}
}

// present joins anew and returns how many are there.
func (s *socket) present() int {
	s.t.Helper()
	s.send(map[string]any{"type": "leave_document"})
	s.want("left_document")
	s.send(map[string]any{"type": "join_document"})
	present, _ := s.want("joined_document").fields["presence"].([]any)
	return len(present)
}
