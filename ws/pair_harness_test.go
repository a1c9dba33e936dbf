package ws_test

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

const pairTick = 200 * time.Millisecond

// pairWorld is what replicas share: one Redis, for sessions and pairs.
type pairWorld struct {
	t       *testing.T
	server  *redistest.Server
	redis   *redis.Client
	factory *sessionstore.Factory
	watcher *sessionstore.Watcher
}

// eachPairWorld runs a test over a real Redis and over miniredis.
func eachPairWorld(t *testing.T, test func(t *testing.T, w *pairWorld)) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) { test(t, newPairWorld(t, s)) })
}

func newPairWorld(t *testing.T, s *redistest.Server) *pairWorld {
	t.Helper()
	w := &pairWorld{t: t, server: s, redis: s.Client(t)}
	var err error
	if w.factory, err = sessionstore.New(w.redis, sessionstore.Config{}); err != nil {
		t.Fatal(err)
	}
	if w.watcher, err = sessionstore.NewWatcher(w.factory, sessionstore.WatchConfig{VerifyEvery: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	background(t, w.watcher.Run)
	eventually(t, "the session news to be heard", func() bool { return w.watcher.Healthy() == nil })
	return w
}

// background runs f until the test ends, and waits for it.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// login makes a session of that user and returns its cookie.
func (w *pairWorld) login(user string) *cookie {
	w.t.Helper()
	s := w.factory.New()
	if user != "" {
		if err := s.Set("user.id", user); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := s.Save(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return &cookie{id: s.ID(), handle: s.Handle()}
}

// pairReplica is one replica that serves pairs.
type pairReplica struct {
	t      *testing.T
	link   *redistest.Link
	plane  *wsredis.Pairs
	hub    *ws.Hub
	server *httptest.Server
}

type pairOptions struct {
	mode   ws.PairMode
	public bool // no login required
	change func(*ws.Config)
	wrap   func(ws.PairPlane) ws.PairPlane
	tick   time.Duration // 0: pairTick
}

func (w *pairWorld) replica(name string, o pairOptions) *pairReplica {
	w.t.Helper()
	r := &pairReplica{t: w.t, link: redistest.NewLink(w.t, w.server.Addr())}
	client := redis.NewClient(&redis.Options{
		Addr: r.link.Addr(), ContextTimeoutEnabled: true,
		DialTimeout: 300 * time.Millisecond, ReadTimeout: 500 * time.Millisecond, WriteTimeout: 500 * time.Millisecond,
	})
	w.t.Cleanup(func() { _ = client.Close() })
	backplane, err := wsredis.New(wsredis.Config{Client: client, Replica: name, Tick: cmp.Or(o.tick, pairTick)})
	if err != nil {
		w.t.Fatal(err)
	}
	if r.plane, err = wsredis.NewPairs(wsredis.PairsConfig{Backplane: backplane, Grace: time.Second}); err != nil {
		w.t.Fatal(err)
	}
	background(w.t, backplane.Run)
	background(w.t, r.plane.Run)
	cfg := ws.Config{
		Backplane: backplane, Replica: name,
		Bind: func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			return w.watcher.Bind(ctx, id, l)
		},
		SessionID: func(r *http.Request) (string, bool) {
			c, err := r.Cookie("tandem")
			if err != nil || !sessionstore.ValidID(c.Value) {
				return "", false
			}
			return c.Value, true
		},
	}
	if o.change != nil {
		o.change(&cfg)
	}
	if r.hub, err = ws.NewHub(cfg); err != nil {
		w.t.Fatal(err)
	}
	plane := ws.PairPlane(r.plane)
	if o.wrap != nil {
		plane = o.wrap(plane)
	}
	handler, err := r.hub.Pairs(ws.PairsConfig{Plane: plane, Mode: o.mode, LoginRequired: !o.public})
	if err != nil {
		w.t.Fatal(err)
	}
	r.server = httptest.NewServer(handler)
	w.t.Cleanup(func() {
		r.link.Heal()
		if err := r.hub.Close(); err != nil {
			w.t.Error(err)
		}
		r.server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	eventually(w.t, "the replica to hear of pairs", func() bool { return r.plane.Healthy() == nil })
	return r
}

func (r *pairReplica) url(side ws.Side, pair string) string {
	return r.server.URL + "/" + string(side) + "/" + pair
}

// plain opens a side for plain messages.
func (r *pairReplica) plain(side ws.Side, pair string, c *cookie) *wstest.Client {
	r.t.Helper()
	return wstest.DialSide(r.t, r.url(side, pair), c.header(), false)
}

// json opens a side for the tandem.pair.v1 protocol.
func (r *pairReplica) json(side ws.Side, pair string, c *cookie) *wstest.Client {
	r.t.Helper()
	return wstest.DialSide(r.t, r.url(side, pair), c.header(), true)
}

// refused expects the upgrade to be refused with that status.
func (r *pairReplica) refused(side ws.Side, pair string, c *cookie, status int) {
	r.t.Helper()
	_, response, err := wstest.TryDialSide(r.t, r.url(side, pair), c.header(), false)
	if err == nil {
		r.t.Fatalf("%s of %s was not refused", side, pair)
	}
	if response == nil || response.StatusCode != status {
		r.t.Fatalf("%s of %s: %v, not %d", side, pair, err, status)
	}
}

// asked asks what an upgrade would be answered.
func (r *pairReplica) asked(side ws.Side, pair string, c *cookie, status int) {
	r.t.Helper()
	response, body := request(r.t, http.MethodOptions, r.url(side, pair), "", c.header())
	if response.StatusCode != status || status == http.StatusNoContent && response.Header.Get("Allow") != "GET, OPTIONS" {
		r.t.Fatalf("OPTIONS for %s of %s: %d %s", side, pair, response.StatusCode, body)
	}
}

func (w *pairWorld) exists(pair string) bool {
	w.t.Helper()
	n, err := w.redis.Exists(w.t.Context(), "tandem:pair:{pair:"+pair+"}").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return n == 1
}

func init() { redis.SetLogger(silent{}) } // it prints each refused connection

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
