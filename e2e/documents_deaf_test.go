package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// Subscriptions live and deliver nothing, without any error: the replica says that it is not ready, repairs them, and
// its clients have missed nothing.
func TestDeafSubscriptions(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	link := redistest.NewLink(t, redis.Addr())
	deaf, well := startReplica(t, settings{redis: redis.URLAt(link.Addr())}), startReplica(t, settings{redis: redis.URL()})
	ada := newPerson(t)
	ada.register(well.url, "ada")
	onDeaf, onWell := ada.open(deaf.url, "deaf"), ada.open(well.url, "deaf")
	onWell.operation("before", 0)
	onDeaf.wantThat("operation", func(f frame) bool { return f.fields["id"] == "before" })

	if n := link.Deafen(); n == 0 {
		t.Fatal("there is no subscription")
	}
	began := time.Now()
	const missed = 20
	for i := range missed {
		onWell.operation(fmt.Sprint("missed", i), i)
	}
	deaf.waitStatus("/readyz", http.StatusServiceUnavailable, 15*time.Second)
	red := time.Since(began)
	deaf.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	t.Logf("not ready after %v, ready again after %v", red.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	onWell.operation("after", 0)
	for seq := 2; seq <= missed+2; seq++ {
		if f := onDeaf.want("operation"); f.number("seq") != seq {
			t.Fatalf("operation %d, want %d", f.number("seq"), seq)
		}
	}
}
