package wsredis_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// slow is a tick that a busy machine keeps.
const slow = 3 * tick

func leaseKeys(t testing.TB, client *redis.Client) []string {
	t.Helper()
	return slices.DeleteFunc(allKeys(t, client), func(key string) bool { return !strings.HasPrefix(key, "tandem:replica:") })
}

// spared fails when somebody was announced as the member of a dead replica
// before the member that comes last.
func spared(t *testing.T, by *replica, heard ...*wstest.Recorder) {
	t.Helper()
	announce(t, by, joined("last"))
	for _, on := range heard {
		got := on.Wait(t, "the last", func(r wstest.Recorded) bool { return r.Joined("last") > 0 })
		for _, conn := range []string{"a1", "b1"} {
			if got.Left(conn, "") > 0 {
				t.Errorf("%s was announced as left: its replica lives", conn)
			}
		}
	}
}

// Redis was away from everybody for longer than a lease. Whoever is back first
// must not take the others for dead.
func TestOutageSparesTheLiving(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link, admin := redistest.NewLink(t, s.Addr()), s.Client(t)
		a, b := startTicking(t, "a", link.Addr(), slow), startTicking(t, "b", link.Addr(), slow)
		onA, onB := subscribe(t, a, doc), subscribe(t, b, doc)
		announce(t, a, joined("a1"))
		announce(t, b, joined("b1"))
		for _, on := range []*wstest.Recorder{onA, onB} {
			on.Wait(t, "both", func(r wstest.Recorded) bool { return r.Joined("a1") > 0 && r.Joined("b1") > 0 })
		}
		pairs := runPairs(t, a)
		left := mustClaim(t, pairs, ws.Left, "left")
		right := mustClaim(t, runPairs(t, b), ws.Right, "right")
		seat := left.met(0).Counterpart

		link.Cut()
		eventually(t, "the leases to run out", func() bool { return len(leaseKeys(t, admin)) == 0 })
		link.Heal()
		a.Resync() // a is quicker than b, and looks at the leases
		pairs.Resync()
		if _, err := claim(t, pairs, ws.Right, "newcomer", ""); !errors.Is(err, ws.ErrSideTaken) {
			t.Errorf("a newcomer on the side that a living replica holds: %v", err)
		}
		eventually(t, "the leases", func() bool { return len(leaseKeys(t, admin)) == 2 })
		eventually(t, "health", func() bool { return a.Healthy() == nil && b.Healthy() == nil })
		spared(t, a, onA, onB)
		if right.isLost() || left.now().Counterpart != seat {
			t.Error("the pair was parted")
		}
	})
}

// Somebody deletes the leases.
func TestLeasesLost(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := startTicking(t, "a", s.Addr(), slow), startTicking(t, "b", s.Addr(), slow)
		onA, onB := subscribe(t, a, doc), subscribe(t, b, doc)
		announce(t, a, joined("a1"))
		announce(t, b, joined("b1"))
		onA.Wait(t, "the other", func(r wstest.Recorded) bool { return r.Joined("b1") > 0 })
		eventually(t, "the leases", func() bool { return len(leaseKeys(t, admin)) == 2 })
		remove(t, admin, leaseKeys(t, admin)...)
		a.Resync()
		eventually(t, "the leases again", func() bool { return len(leaseKeys(t, admin)) == 2 })
		spared(t, a, onA, onB)
	})
}

// A Redis that is out of memory prolongs leases, so that nobody passes for
// dead, and refuses the rest as not available.
func TestOutOfMemory(t *testing.T) {
	s := redistest.Start(t)
	admin := s.Client(t)
	a := start(t, "a", s.Addr())
	onA := subscribe(t, a, doc)
	announce(t, a, joined("a1"))
	appendOne(t, a, "1") // the script is loaded
	lease := leaseKeys(t, admin)
	if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Append(t.Context(), doc, ws.Operation{ID: "2", UserID: "7"}, ws.Position{}); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	life := admin.PTTL(t.Context(), lease[0]).Val()
	for end := time.Now().Add(2 * life); time.Now().Before(end); time.Sleep(tick / 10) {
		if len(leaseKeys(t, admin)) == 0 {
			t.Fatal("the lease ran out")
		}
	}
	if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	onA.Wait(t, "an operation", has(appendOne(t, a, "2").Position))
}
