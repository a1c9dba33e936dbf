package sessionstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// machine does random things to several stores over one Redis, and to the
// model, and compares. Each method that is an action is one of them.
type machine struct {
	t    testing.TB // for what has no part in the property
	ctx  context.Context
	rdb  redis.UniversalClient // looks at Redis beside the stores
	cfg  sessionstore.Config
	ours sessionstore.Serializer
	rules
	sleep func(time.Duration) // nil: time cannot be moved

	replicas []*oneReplica
	stock    *stock // nil: an application could not read these sessions
	sessions []*modelled
	copies   []*copied
	drafts   []*draft
	bindings []*bound
	lists    int
}

// oneReplica is a process with a store, a factory and a watcher.
type oneReplica struct {
	*sessionstore.Factory
	store   *sessionstore.Store
	watcher *sessionstore.Watcher
	stop    func()
}

// bound is a socket's binding.
type bound struct {
	of *modelled
	b  *sessionstore.Binding
	told
}

const sessionUser, sessionName = "user.id", "user.name"

func newReplica(m *machine, rdb redis.UniversalClient) *oneReplica {
	f, err := sessionstore.New(rdb, m.cfg)
	must(m.t, err)
	st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
	must(m.t, err)
	readable, err := sessionstore.ParsePatterns([]string{"*"})
	must(m.t, err)
	w, err := sessionstore.NewWatcher(f, sessionstore.WatchConfig{VerifyEvery: verifyEvery, Readable: readable})
	must(m.t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	return &oneReplica{f, st, w, func() { stop(); running.Wait() }}
}

const verifyEvery = time.Second

// pick draws one of some; ok is false when there are none.
func pick[T any](t *rapid.T, some []T, what string) (one T, ok bool) {
	if len(some) == 0 {
		return one, false
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(t, what)], true
}

func (m *machine) replica(t *rapid.T) *oneReplica {
	r, _ := pick(t, m.replicas, "replica")
	return r
}

// session draws a session and one of its IDs, mostly the newest; what time
// has done to it is known afterwards.
func (m *machine) session(t *rapid.T) (s *modelled, at int, ok bool) {
	if s, ok = pick(t, m.sessions, "session"); !ok {
		return nil, 0, false
	}
	m.settle(t, s)
	at = s.last() - rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "older ID")
	return s, max(at, 0), true
}

// settle finds out what time has done to s.
func (m *machine) settle(t *rapid.T, s *modelled) {
	if !s.over && m.timedOut(t, s, m.exists(s.id()), time.Now()) {
		s.expired()
	}
	s.faded = s.faded || s.over && time.Since(s.overAt) >= m.absolute
}

func (m *machine) ref(id string) string {
	if m.cfg.HashIDs {
		sum := sha256.Sum256([]byte(id))
		return hex.EncodeToString(sum[:])
	}
	return id
}

func (m *machine) valueKey(id string) string { return "session:" + m.ref(id) }

func (m *machine) exists(id string) bool {
	n, err := m.rdb.Exists(m.ctx, m.valueKey(id)).Result()
	must(m.t, err)
	return n == 1
}
