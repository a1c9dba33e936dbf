package sessionstore_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	"github.com/rbcervilla/redisstore/v9"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// each runs fn against a real Redis and a miniredis.
func each(t *testing.T, fn func(t *testing.T, rdb redis.UniversalClient)) {
	t.Helper()
	redistest.Each(t, func(t *testing.T, s *redistest.Server) { fn(t, s.Client(t)) })
}

// eachAndCluster is each, and a Redis Cluster of three.
func eachAndCluster(t *testing.T, fn func(t *testing.T, rdb redis.UniversalClient)) {
	t.Helper()
	each(t, fn)
	t.Run("cluster", func(t *testing.T) { fn(t, cluster(t)) })
}

// cluster starts three masters that share the slots.
func cluster(t *testing.T) *redis.ClusterClient {
	t.Helper()
	ctx := t.Context()
	const slots = 16384
	var nodes []*redis.Client
	var addrs []string
	for i := range 3 {
		bus := freePort(t)
		s := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", bus)
		node := s.Client(t)
		addSlots := []any{"cluster", "addslotsrange", i * slots / 3, (i+1)*slots/3 - 1}
		if err := node.Do(ctx, addSlots...).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			host, port, _ := net.SplitHostPort(s.Addr())
			if err := nodes[0].Do(ctx, "cluster", "meet", host, port, bus).Err(); err != nil {
				t.Fatal(err)
			}
		}
		nodes, addrs = append(nodes, node), append(addrs, s.Addr())
	}
	until(t, "every node knows all slots", func() bool {
		for _, node := range nodes {
			info, err := node.ClusterInfo(ctx).Result()
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func factory(t testing.TB, rdb redis.UniversalClient, cfg sessionstore.Config) *sessionstore.Factory {
	t.Helper()
	f, err := sessionstore.New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// created stores a new session with the given attributes, name after value.
func created(t testing.TB, f *sessionstore.Factory, attrs ...any) *sessionstore.Session {
	t.Helper()
	s := f.New()
	set(t, s, attrs...)
	must(t, s.Save(t.Context()))
	return s
}

func set(t testing.TB, s *sessionstore.Session, attrs ...any) {
	t.Helper()
	for i := 0; i < len(attrs); i += 2 {
		must(t, s.Set(attrs[i].(string), attrs[i+1]))
	}
}

func loaded(t testing.TB, f *sessionstore.Factory, id string) *sessionstore.Session {
	t.Helper()
	s, err := f.Load(t.Context(), id)
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantEnded fails unless err is the end of a session for this reason.
func wantEnded(t testing.TB, err error, reason sessionstore.Reason) {
	t.Helper()
	var ended *sessionstore.EndedError
	if !errors.As(err, &ended) || ended.Reason != reason {
		t.Fatalf("got error %v, want ended: %s", err, reason)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func wantJSON(t testing.TB, s *sessionstore.Session, name, want string) {
	t.Helper()
	if got, ok := s.JSON(name); string(got) != want || ok != (want != "") {
		t.Fatalf("%s is %q (%t), want %q", name, got, ok, want)
	}
}

func raw(t testing.TB, rdb redis.UniversalClient, id string) string {
	t.Helper()
	v, err := rdb.Get(t.Context(), "session:"+id).Result()
	must(t, err)
	return v
}

// stock is an application with the unmodified redisstore/v9.
type stock struct {
	t     testing.TB
	store *redisstore.RedisStore
}

func newStock(t testing.TB, rdb redis.UniversalClient, serializer redisstore.SessionSerializer) stock {
	t.Helper()
	store, err := redisstore.NewRedisStore(t.Context(), rdb)
	must(t, err)
	store.Options(sessions.Options{Path: "/", MaxAge: 86400})
	if serializer != nil {
		store.Serializer(serializer)
	}
	return stock{t, store}
}

// load is what the application sees in a request with this cookie.
func (s stock) load(id string) *sessions.Session {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/", nil)
	if id != "" {
		r.AddCookie(&http.Cookie{Name: "sid", Value: id})
	}
	gs, err := s.store.New(r, "sid")
	must(s.t, err)
	return gs
}

// save is the application's blind SET of all it has.
func (s stock) save(gs *sessions.Session) string {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "/", nil)
	must(s.t, s.store.Save(r, httptest.NewRecorder(), gs))
	return gs.ID
}

// made is a session that the application has made by itself.
func (s stock) made(attrs ...any) string {
	s.t.Helper()
	gs := s.load("")
	for i := 0; i < len(attrs); i += 2 {
		gs.Values[attrs[i]] = attrs[i+1]
	}
	return s.save(gs)
}

// plainJSON is the JSON serializer that applications write for redisstore.
type plainJSON struct{}

func (plainJSON) Serialize(s *sessions.Session) ([]byte, error) {
	m := make(map[string]any, len(s.Values))
	for k, v := range s.Values {
		m[k.(string)] = v
	}
	return json.Marshal(m)
}

func (plainJSON) Deserialize(b []byte, s *sessions.Session) error {
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for k, v := range m {
		s.Values[k] = v
	}
	return nil
}

// serializers are the pairs that read each other.
var serializers = []struct {
	name  string
	ours  sessionstore.Serializer
	stock redisstore.SessionSerializer
}{
	{"json", sessionstore.JSON(), plainJSON{}},
	{"gob", sessionstore.Gob(), redisstore.GobSerializer{}},
	{"custom", plainJSON{}, plainJSON{}},
}

func rawJSON(s string) json.RawMessage { return json.RawMessage(s) }

// fewerOnMini is n, or less on miniredis, which runs scripts a hundred times
// slower.
func fewerOnMini(t *testing.T, n int) int {
	if strings.Contains(t.Name(), "miniredis") {
		return n / 5
	}
	return n
}

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
