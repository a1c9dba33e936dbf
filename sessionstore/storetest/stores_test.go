package storetest_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	"github.com/rbcervilla/redisstore/v9"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/sessionstore/storetest"
)

// backend is a Redis and the link to it that the stores use.
type backend struct {
	t      *testing.T
	server *redistest.Server
	link   *redistest.Link
	direct *redis.Client                     // past the link
	pings  []func(ctx context.Context) error // of the stores' connections
}

func newBackend(t *testing.T, s *redistest.Server) *backend {
	return &backend{t: t, server: s, link: redistest.NewLink(t, s.Addr()), direct: s.Client(t)}
}

func (b *backend) raw(id string) ([]byte, error) {
	v, err := b.direct.Get(b.t.Context(), "session:"+id).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return v, err
}

func (b *backend) corrupt(id string) error {
	return b.direct.Set(b.t.Context(), "session:"+id, "neither JSON nor gob", time.Hour).Err()
}

func (b *backend) setAvailable(available bool) error {
	if !available {
		b.link.Cut()
		return nil
	}
	b.link.Heal()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	for _, ping := range b.pings {
		for ping(ctx) != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// harness has all hooks but Renew.
func (b *backend) harness(store, replica sessions.Store) storetest.Harness {
	return storetest.Harness{
		Store: store, Replica: replica, Raw: b.raw, Corrupt: b.corrupt, SetAvailable: b.setAvailable,
	}
}

// ours is this project's store, as the documentation says to open it.
func ours(t *testing.T, s *redistest.Server, cfg sessionstore.Config, face sessionstore.StoreConfig) storetest.Harness {
	b := newBackend(t, s)
	var factories [2]*sessionstore.Factory
	var stores [2]*sessionstore.Store
	for i := range stores {
		conn, err := redisconn.Open(redisconn.Config{URL: s.URLAt(b.link.Addr())})
		must(t, err)
		t.Cleanup(func() { must(t, conn.Close()) })
		b.pings = append(b.pings, func(ctx context.Context) error {
			if err := conn.Ping(ctx); err != nil {
				return err
			}
			if !conn.Up() {
				return redisconn.ErrUnavailable
			}
			return nil
		})
		factories[i], err = sessionstore.New(conn.Client(), cfg)
		must(t, err)
		stores[i], err = sessionstore.NewStore(factories[i], face)
		must(t, err)
	}
	h := b.harness(stores[0], stores[1])
	h.Cookie = face.Cookie
	h.Renew = func(w http.ResponseWriter, r *http.Request, gs *sessions.Session) error {
		current, _ := sessionstore.Of(gs)
		logged, err := factories[0].Login(r.Context(), current, sessionstore.Login{UserID: "7", UserName: "Ann"})
		if err != nil {
			return err
		}
		stores[0].SetCookie(w, r, logged)
		return nil
	}
	return h
}

// stock is the unmodified redisstore/v9; options nil: as it comes.
func stock(t *testing.T, s *redistest.Server, options *sessions.Options) storetest.Harness {
	b := newBackend(t, s)
	var stores [2]*redisstore.RedisStore
	for i := range stores {
		client := redis.NewClient(&redis.Options{Addr: b.link.Addr(), MaxRetries: -1, DialerRetries: 1})
		t.Cleanup(func() { _ = client.Close() })
		b.pings = append(b.pings, func(ctx context.Context) error { return client.Ping(ctx).Err() })
		var err error
		stores[i], err = redisstore.NewRedisStore(t.Context(), client)
		must(t, err)
		if options != nil {
			stores[i].Options(*options)
		}
	}
	h := b.harness(stores[0], stores[1])
	h.Renew = renewByHand
	return h
}

// renewByHand is what applications do whose store offers nothing: delete the
// session, and save it once more as a new one.
func renewByHand(w http.ResponseWriter, r *http.Request, gs *sessions.Session) error {
	age := gs.Options.MaxAge
	gs.Options.MaxAge = -1
	if err := gs.Save(r, w); err != nil {
		return err
	}
	gs.ID, gs.Options.MaxAge = "", age
	return gs.Save(r, w)
}

var key = []byte("0123456789abcdef0123456789abcdef")

// cookieStore is gorilla's, which has no backend: everything is in the cookie.
func cookieStore() storetest.Harness {
	return storetest.Harness{Store: sessions.NewCookieStore(key), Replica: sessions.NewCookieStore(key)}
}

// filesystemStore is gorilla's. An outage is a directory that is not there.
func filesystemStore(t *testing.T) storetest.Harness {
	dir := filepath.Join(t.TempDir(), "sessions")
	must(t, os.Mkdir(dir, 0o700))
	file := func(id string) string { return filepath.Join(dir, "session_"+id) }
	return storetest.Harness{
		Store: sessions.NewFilesystemStore(dir, key), Replica: sessions.NewFilesystemStore(dir, key), Renew: renewByHand,
		Raw: func(id string) ([]byte, error) {
			b, err := os.ReadFile(file(id))
			if errors.Is(err, os.ErrNotExist) {
				return nil, nil
			}
			return b, err
		},
		Corrupt: func(id string) error { return os.WriteFile(file(id), []byte("unsigned"), 0o600) },
		SetAvailable: func(available bool) error {
			if available {
				return os.Rename(dir+" away", dir)
			}
			return os.Rename(dir, dir+" away")
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
