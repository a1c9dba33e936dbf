package wsredis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// places is a running count of connections.
type places struct {
	*wsredis.Places
	stop func() // ends Run and waits for it
}

func runPlaces(t testing.TB, r *replica) places {
	t.Helper()
	p, err := wsredis.NewPlaces(wsredis.PlacesConfig{Backplane: r.Backplane})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return places{p, stop}
}

// losePlaces makes Redis forget all counts.
func losePlaces(t testing.TB, admin *redis.Client) {
	t.Helper()
	remove(t, admin, placesKeys(t, admin)...)
}

func placesKeys(t testing.TB, admin *redis.Client) []string {
	t.Helper()
	return slices.DeleteFunc(allKeys(t, admin), func(key string) bool { return !strings.HasPrefix(key, "tandem:places:") })
}

func TestPlacesContract(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		wstest.PlacesContract(t, func(t *testing.T) wstest.PlacesPair {
			losePlaces(t, admin)
			a, kill := killable(t, "a", s)
			b := startTicking(t, "b", s.Addr(), calm)
			return wstest.PlacesPair{
				A: runPlaces(t, a), B: runPlaces(t, b), KillA: kill,
				Lose: func() { losePlaces(t, admin) },
			}
		})
	})
}

// All that a script touches lies in one slot.
func TestPlacesOnCluster(t *testing.T) {
	client := redistest.StartCluster(t, 0).Client(t)
	wstest.PlacesContract(t, func(t *testing.T) wstest.PlacesPair {
		a, _ := startOn(t, "a", client)
		b, _ := startOn(t, "b", client)
		onA := runPlaces(t, &replica{Backplane: a})
		return wstest.PlacesPair{
			A: onA, B: runPlaces(t, &replica{Backplane: b}),
			KillA: onA.stop, // a clean end: the counts go the same way
		}
	})
}

var two = ws.PlaceLimits{PerSession: 2}

func take(p places, session string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.Take(ctx, ws.Place{Session: session, User: "7"}, two)
}

// While Redis is away a replica counts what it has; what it gave meanwhile
// counts everywhere when Redis is back.
func TestPlacesWhileRedisIsAway(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link := redistest.NewLink(t, s.Addr())
		a := runPlaces(t, startTicking(t, "a", link.Addr(), tick))
		b := runPlaces(t, startTicking(t, "b", s.Addr(), tick))
		if err := errors.Join(take(a, "x"), take(b, "x")); err != nil {
			t.Fatal(err)
		}
		link.Cut()
		if err := take(a, "x"); err != nil {
			t.Errorf("one of two here, Redis away: %v", err)
		}
		if err := take(a, "x"); !errors.Is(err, ws.ErrCrowded) {
			t.Errorf("two of two here, Redis away: %v", err)
		}
		link.Heal()
		eventually(t, "the counts", func() bool {
			n, err := b.Count(t.Context(), []string{"x"})
			return err == nil && n[0] == 3
		})
		if err := take(b, "x"); !errors.Is(err, ws.ErrCrowded) {
			t.Errorf("three of two: %v", err)
		}
	})
}

// A replica that ends takes its counts along, and nobody else's.
func TestPlacesEnd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := runPlaces(t, start(t, "a", s.Addr())), runPlaces(t, start(t, "b", s.Addr()))
		if err := errors.Join(take(a, "x"), take(b, "x")); err != nil {
			t.Fatal(err)
		}
		a.stop()
		if n, err := b.Count(t.Context(), []string{"x"}); err != nil || n[0] != 1 {
			t.Errorf("%v, %v", n, err)
		}
		if err := take(b, "x"); err != nil {
			t.Error(err)
		}
		if keys := placesKeys(t, admin); len(keys) != 2 {
			t.Errorf("%v", keys)
		}
	})
}

// Many sessions at once, more than go into one script, and all of them again
// after Redis has lost them.
func TestPlacesOfACrowd(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := runPlaces(t, startTicking(t, "a", s.Addr(), slow)), runPlaces(t, startTicking(t, "b", s.Addr(), slow))
		const sessions = 2500
		names := make([]string, sessions)
		var wg sync.WaitGroup
		for i := range sessions {
			names[i] = fmt.Sprint(i)
			wg.Go(func() {
				if err := take(a, names[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		all := func() bool {
			counts, err := b.Count(t.Context(), names)
			return err == nil && !slices.Contains(counts, 0) && !slices.Contains(counts, 2)
		}
		if !all() {
			t.Error("not all are counted")
		}
		losePlaces(t, admin)
		eventually(t, "the counts again", all)
		for _, name := range names {
			a.Release(ws.Place{Session: name, User: "7"})
		}
		eventually(t, "an empty hash", func() bool {
			for _, key := range placesKeys(t, admin) {
				if admin.Type(t.Context(), key).Val() == "hash" && admin.HLen(t.Context(), key).Val() > 1 {
					return false
				}
			}
			return true
		})
	})
}

// Somebody else may have written to the hash, or a failover brought back an
// older one: what the replica has counts.
func TestPlacesWrittenOver(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		a, b := runPlaces(t, start(t, "a", s.Addr())), runPlaces(t, start(t, "b", s.Addr()))
		if err := errors.Join(take(a, "x"), take(a, "x")); err != nil {
			t.Fatal(err)
		}
		for _, key := range placesKeys(t, admin) {
			if strings.Contains(key, ":a.") {
				if err := admin.HSet(t.Context(), key, "s:x", 1, "write", 1).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		eventually(t, "the count to be put right", func() bool {
			n, err := b.Count(t.Context(), []string{"x"})
			return err == nil && n[0] == 2
		})
		if err := take(b, "x"); !errors.Is(err, ws.ErrCrowded) {
			t.Error(err)
		}
	})
}

func BenchmarkTakePlace(b *testing.B) {
	s := redistest.Start(b)
	p := runPlaces(b, start(b, "a", s.Addr()))
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				session := fmt.Sprint(time.Now().UnixNano())
				for pb.Next() {
					if take(p, session) == nil {
						p.Release(ws.Place{Session: session, User: "7"})
					}
				}
			})
		})
	}
}
