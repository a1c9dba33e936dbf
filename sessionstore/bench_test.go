package sessionstore_test

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// The ratios count: each benchmark runs beside the bare commands it cannot
// do without.

// typical is an ordinary session of some 600 bytes.
func typical(b testing.TB, f *sessionstore.Factory) *sessionstore.Session {
	b.Helper()
	return created(b, f, "user.id", "7", "user.name", "Ann", "n", 0, "chat.name", "Annie", "theme", "dark",
		"cart", []string{strings.Repeat("x", 100), strings.Repeat("y", 100)}, "locale", "de", "csrf", strings.Repeat("z", 64))
}

// BenchmarkLoadBesideGET states how long a load takes in round trips of a bare
// GET of the same value. On a busy machine means are worth little: rounds of
// each alternate, and the quickest quarter of them is compared. Both go through
// a bare client, or both through the connection that Tandem makes.
func BenchmarkLoadBesideGET(b *testing.B) {
	srv := redistest.Start(b)
	for name, rdb := range map[string]redis.UniversalClient{"go-redis": srv.Client(b), "redisconn": ownClient(b, srv)} {
		b.Run(name, func(b *testing.B) { loadBesideGET(b, rdb) })
	}
}

func ownClient(b *testing.B, srv *redistest.Server) redis.UniversalClient {
	b.Helper()
	conn, err := redisconn.Open(redisconn.Config{URL: srv.URL()})
	must(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	return conn.Client()
}

func loadBesideGET(b *testing.B, rdb redis.UniversalClient) {
	const inRound = 50
	ctx := b.Context()
	f := factory(b, rdb, sessionstore.Config{})
	sealed := factory(b, rdb, guarded(b, sessionstore.Config{}))
	gobs := factory(b, rdb, sessionstore.Config{Serializer: sessionstore.Gob()})
	s, g, o := typical(b, f), typical(b, sealed), typical(b, gobs)
	steps := []struct {
		name string
		do   func() error
		took []time.Duration
	}{
		{name: "GET", do: func() error { return rdb.Get(ctx, "session:"+s.ID()).Err() }},
		{name: "pipeline/GET", do: func() error {
			pipe := rdb.Pipeline()
			pipe.MGet(ctx, "session:"+s.ID(), "tandem:end:{session:"+s.ID()+"}")
			pipe.PTTL(ctx, "session:"+s.ID())
			return errOf(pipe.Exec(ctx))
		}},
		{name: "load/GET", do: func() error { return errOf(f.Load(ctx, s.ID())) }},
		{name: "guarded/GET", do: func() error { return errOf(sealed.Load(ctx, g.ID())) }},
		{name: "gob/GET", do: func() error { return errOf(gobs.Load(ctx, o.ID())) }},
	}
	for round := 0; b.Loop(); round++ {
		for i := range steps {
			step := &steps[(i+round)%len(steps)]
			began := time.Now()
			for range inRound {
				if err := step.do(); err != nil {
					b.Fatal(err)
				}
			}
			step.took = append(step.took, time.Since(began))
		}
	}
	quartile := func(i int) float64 {
		slices.Sort(steps[i].took)
		return float64(steps[i].took[len(steps[i].took)/4])
	}
	for i := 1; i < len(steps); i++ {
		b.ReportMetric(quartile(i)/quartile(0), steps[i].name)
	}
	b.ReportMetric(quartile(0)/inRound, "ns/GET")
}

func BenchmarkLoad(b *testing.B) {
	rdb := redistest.Start(b).Client(b)
	ctx := b.Context()
	f := factory(b, rdb, sessionstore.Config{})
	gobs := factory(b, rdb, sessionstore.Config{Serializer: sessionstore.Gob(), KeyPrefix: "gob:"})
	s, g := typical(b, f), typical(b, gobs)
	app, gobApp := newStock(b, rdb, plainJSON{}), newStock(b, rdb, nil)
	gobApp.store.KeyPrefix("gob:")

	b.Run("raw GET", func(b *testing.B) {
		for b.Loop() {
			must(b, rdb.Get(ctx, "session:"+s.ID()).Err())
		}
	})
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			must(b, errOf(f.Load(ctx, s.ID())))
		}
	})
	b.Run("Load gob", func(b *testing.B) {
		for b.Loop() {
			must(b, errOf(gobs.Load(ctx, g.ID())))
		}
	})
	b.Run("redisstore", func(b *testing.B) {
		for b.Loop() {
			app.load(s.ID())
		}
	})
	b.Run("redisstore gob", func(b *testing.B) {
		for b.Loop() {
			gobApp.load(g.ID())
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	rdb := redistest.Start(b).Client(b)
	ctx := b.Context()
	f := factory(b, rdb, sessionstore.Config{})
	s := typical(b, f)
	swap := redis.NewScript(`if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') return 1`)
	must(b, rdb.Set(ctx, "bare", raw(b, rdb, s.ID()), time.Hour).Err())

	b.Run("raw GET and EVALSHA", func(b *testing.B) {
		for b.Loop() {
			v, err := rdb.Get(ctx, "bare").Result()
			must(b, err)
			must(b, swap.Run(ctx, rdb, []string{"bare"}, v, v).Err())
		}
	})
	b.Run("Update", func(b *testing.B) {
		for b.Loop() {
			must(b, errOf(f.Update(ctx, s.ID(), increment)))
		}
	})
	app := newStock(b, rdb, plainJSON{})
	b.Run("redisstore load and save", func(b *testing.B) {
		for b.Loop() {
			app.save(app.load(s.ID()))
		}
	})
}

// BenchmarkManyWriters has many writers increment one attribute of one
// session. Beside the time of one increment it states how often they met.
func BenchmarkManyWriters(b *testing.B) {
	rdb := redistest.Start(b).Client(b)
	for _, writers := range []int{4, 16, 64} {
		b.Run(strconv.Itoa(writers), func(b *testing.B) {
			registry := prometheus.NewRegistry()
			f := factory(b, rdb, sessionstore.Config{Metrics: registry})
			id := typical(b, f).ID()
			b.SetParallelism(max(writers/runtime.GOMAXPROCS(0), 1))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					must(b, errOf(f.Update(b.Context(), id, increment)))
				}
			})
			families, err := registry.Gather()
			must(b, err)
			for _, family := range families {
				if family.GetName() == "tandem_sessions_conflicts_total" {
					b.ReportMetric(family.GetMetric()[0].GetCounter().GetValue()/float64(b.N), "conflicts/op")
				}
			}
		})
	}
}

// ways are a request's to its session, by serializer: typed, as pages of ours
// and the gateway ask; gorilla's, for which all values are decoded; and stock
// redisstore's.
func ways(t testing.TB) map[string][]way {
	t.Helper()
	rdb := redistest.Start(t).Client(t)
	all := map[string][]way{}
	for _, s := range serializers[:2] {
		f := factory(t, rdb, sessionstore.Config{Serializer: s.ours, KeyPrefix: s.name + ":"})
		st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{Cookie: "sid"})
		must(t, err)
		id := typical(t, f).ID()
		app := newStock(t, rdb, s.stock)
		app.store.KeyPrefix(s.name + ":")
		request := func() *http.Request {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.AddCookie(&http.Cookie{Name: "sid", Value: id})
			return r
		}
		all[s.name] = []way{
			{"no session", func() { _ = request() }},
			{"Session", func() { must(t, errOf(st.Session(request()))) }},
			{"Get", func() { must(t, errOf(st.Get(request(), "sid"))) }},
			{"redisstore", func() { must(t, errOf(app.store.New(request(), "sid"))) }},
		}
	}
	return all
}

type way struct {
	name string
	ask  func()
}

func BenchmarkStore(b *testing.B) {
	for serializer, all := range ways(b) {
		for _, w := range all {
			b.Run(serializer+"/"+w.name, func(b *testing.B) {
				for b.Loop() {
					w.ask()
				}
			})
		}
	}
}

// A request's session takes no more allocations than stock redisstore's.
func TestAllocationsOfARequest(t *testing.T) {
	for serializer, all := range ways(t) {
		allocs := map[string]float64{}
		for _, w := range all {
			allocs[w.name] = testing.AllocsPerRun(100, w.ask)
		}
		t.Log(serializer, allocs)
		if stock := allocs["redisstore"]; allocs["Session"] > stock || allocs["Get"] > stock {
			t.Errorf("%s: %v allocations", serializer, allocs)
		}
	}
}
