package sessionstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// beforeEach is a hook that does something right before each run of a script.
type beforeEach struct {
	before
	do func()
}

func (b *beforeEach) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == b.script.Hash() {
			b.do()
		}
		return next(ctx, cmd)
	}
}

// Somebody saves each time that a rotation has just looked. It met that once;
// then it has the session to itself, and who saves waits for it.
func TestRotationIsNotStarved(t *testing.T) {
	onRedisAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		f, err := New(rdb, Config{})
		check(t, err)
		other, err := New(rdb, Config{}) // of another replica: those of one let each other go first
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		attempts, saved := 0, 0
		rdb.AddHook(&beforeEach{before: before{script: rotateScript}, do: func() {
			attempts++
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := other.Update(ctx, s.ID(), func(s *Session) error { return s.Set("n", float64(attempts)) }); err == nil {
				saved++
			}
		}})
		check(t, s.Rotate(t.Context(), &Login{UserID: "7"}))
		if attempts != 2 || saved != 1 {
			t.Errorf("%d attempts, %d saves in between", attempts, saved)
		}
		// Nothing holds the session any more.
		now, err := f.Update(t.Context(), s.ID(), func(s *Session) error { return s.Set("m", true) })
		check(t, err)
		if n, _ := now.Get("n"); n != 1.0 {
			t.Errorf("n is %v", n)
		}
	})
}

// A login that met a save and was given up is no obstacle for the next, nor for
// who saves; neither is one whose replica died.
func TestHoldStopsNoRotation(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		rdb := srv.Client(t)
		f, err := New(rdb, Config{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		AbandonRotation(t, rdb, f, s, time.Minute)
		next, err := f.Load(t.Context(), s.ID())
		check(t, err)
		check(t, next.Rotate(t.Context(), nil))

		late, err := f.Load(t.Context(), next.ID())
		check(t, err)
		_, err = f.Update(t.Context(), next.ID(), func(s *Session) error { return s.Set("n", 1.0) })
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		hook := &beforeEach{before: before{script: createScript}, do: func() {}}
		rdb.AddHook(hook)
		hook.do = func() { // right before the second attempt, which finds its caller gone
			if rdb.Exists(t.Context(), f.holdKey(late.ref)).Val() == 1 {
				cancel()
			}
		}
		if err := late.Rotate(ctx, nil); err == nil {
			t.Error("rotated for a caller who has gone")
		}
		if n := rdb.Exists(t.Context(), f.holdKey(next.ref)).Val(); n != 0 {
			t.Error("still held")
		}
	})
}

// A rotation whose replica died holds the session for a moment only.
func TestHoldEnds(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		rdb := srv.Client(t)
		f, err := New(rdb, Config{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		AbandonRotation(t, rdb, f, s, holdTTL)
		_, err = f.Update(t.Context(), s.ID(), func(s *Session) error { return s.Set("m", true) })
		check(t, err)
	})
}

// AbandonRotation leaves s held by a rotation whose replica died, for ttl.
func AbandonRotation(t *testing.T, rdb redis.UniversalClient, f *Factory, s *Session, ttl time.Duration) {
	t.Helper()
	late, err := f.Load(t.Context(), s.ID())
	check(t, err)
	_, err = f.Update(t.Context(), s.ID(), func(s *Session) error { return s.Set("other", true) })
	check(t, err)
	_, r, err := late.tryRotate(t.Context(), nil, "abandoned")
	check(t, err)
	if r.outcome != conflict {
		t.Errorf("outcome %v", r.outcome)
	}
	key := f.holdKey(s.ref)
	if left := rdb.PTTL(t.Context(), key).Val(); left <= 0 || left > holdTTL {
		t.Errorf("held for %v", left)
	}
	check(t, rdb.PExpire(t.Context(), key, ttl).Err())
}
