package wsredis_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws/wsredis"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // it prints each refused connection
	goleak.VerifyTestMain(m)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

const (
	doc     = "d"
	keep    = 300
	tick    = 300 * time.Millisecond // a deaf subscription is given up after 0.8 s
	calm    = 2 * tick               // where a busy machine must not look like a deaf subscription
	timeout = 15 * time.Second
)

// replica is a running Backplane.
type replica struct {
	*wsredis.Backplane
	client *redis.Client
	stop   func() // ends Run and waits for it
}

// start runs a replica over the Redis at addr, which may be a link's.
func start(t testing.TB, name, addr string) *replica {
	t.Helper()
	return startTicking(t, name, addr, tick)
}

func startTicking(t testing.TB, name, addr string, tick time.Duration) *replica {
	t.Helper()
	return startWith(t, addr, wsredis.Config{Replica: name, KeepOperations: keep, Tick: tick})
}

// startWith runs a replica whose client and log are made here.
func startWith(t testing.TB, addr string, cfg wsredis.Config) *replica {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: addr, ContextTimeoutEnabled: true,
		DialTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second,
	})
	cfg.Client = client
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	b, err := wsredis.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop := func() { cancel(); <-done; _ = client.Close() }
	t.Cleanup(stop)
	return &replica{b, client, stop}
}

// killable starts a replica that can be cut from Redis for good.
func killable(t testing.TB, name string, s *redistest.Server) (*replica, func()) {
	t.Helper()
	link := redistest.NewLink(t, s.Addr())
	r := startTicking(t, name, link.Addr(), calm)
	return r, func() { link.Cut(); r.stop() }
}

func TestContract(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		admin := s.Client(t)
		wstest.Contract(t, func(t *testing.T) wstest.Pair {
			a, kill := killable(t, "a", s)
			b := startTicking(t, "b", s.Addr(), calm)
			return wstest.Pair{
				A: a, B: b, Keep: keep, KillA: kill,
				LoseLog: func(document string) {
					remove(t, admin, "tandem:doc:{doc:"+document+"}", "tandem:log:{doc:"+document+"}",
						"tandem:snapshot:{doc:"+document+"}")
				},
			}
		})
	})
}

func remove(t testing.TB, client *redis.Client, keys ...string) {
	t.Helper()
	if len(keys) == 0 {
		return
	}
	if err := client.Del(context.Background(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
}

func allKeys(t testing.TB, client *redis.Client) []string {
	t.Helper()
	var keys []string
	scan := client.Scan(context.Background(), 0, "*", 1000).Iterator()
	for scan.Next(context.Background()) {
		keys = append(keys, scan.Val())
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func subscribe(t testing.TB, r *replica, document string) *wstest.Recorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	recorder := wstest.NewRecorder()
	unsubscribe, err := r.Subscribe(ctx, document, recorder)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(unsubscribe)
	return recorder
}

func TestConfig(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	for name, c := range map[string]wsredis.Config{
		"Client":    {Replica: "r"},
		"Replica":   {Client: client},
		"negative":  {Client: client, Replica: "r", KeepOperations: -1},
		"Lease":     {Client: client, Replica: "r", Tick: time.Second, Lease: time.Second},
		"Retention": {Client: client, Replica: "r", Retention: time.Millisecond},
	} {
		if _, err := wsredis.New(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
