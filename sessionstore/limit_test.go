package sessionstore_test

import (
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// A login beyond the limit ends the oldest others, and nobody else's.
func TestMaxPerUser(t *testing.T) {
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{MaxPerUser: 2})
		login := func(current *sessionstore.Session, l sessionstore.Login) *sessionstore.Session {
			t.Helper()
			s, err := f.Login(ctx, current, l)
			must(t, err)
			return s
		}
		other := login(nil, bob)
		first, second := login(nil, ann), login(created(t, f, "a", 1), ann)
		first = login(first, ann) // the same session, now the younger
		third := login(nil, ann)
		_, err := f.Load(ctx, second.ID())
		wantEnded(t, err, sessionstore.ReasonRevoked)
		infos, err := f.List(ctx, "7")
		wantHandles(t, infos, err, first, third)

		// One that has expired does not count.
		must(t, rdb.Del(ctx, "session:"+first.ID()).Err())
		fourth := login(nil, ann)
		infos, err = f.List(ctx, "7")
		wantHandles(t, infos, err, third, fourth)
		loaded(t, f, other.ID())

		// The limit was lowered.
		one := factory(t, rdb, sessionstore.Config{MaxPerUser: 1})
		last, err := one.Login(ctx, nil, ann)
		must(t, err)
		infos, err = f.List(ctx, "7")
		wantHandles(t, infos, err, last)
	})
}

// However many logins fall together, on whatever replicas: the limit holds,
// and never is nobody logged in.
func TestMaxPerUserAtATime(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		const limit = 3
		replicas := []*sessionstore.Factory{
			factory(t, rdb, sessionstore.Config{MaxPerUser: limit}), factory(t, rdb, sessionstore.Config{MaxPerUser: limit}),
		}
		for range fewerOnMini(t, 20) {
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					if _, err := replicas[i%2].Login(ctx, nil, ann); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			infos, err := replicas[0].List(ctx, "7")
			must(t, err)
			if len(infos) != limit {
				t.Fatalf("%d sessions, want %d", len(infos), limit)
			}
		}
	})
}
