package sessionstore_test

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// The ratios count: each benchmark runs beside the bare commands it cannot
// do without.

// typical is an ordinary session of some 600 bytes.
func typical(b *testing.B, f *sessionstore.Factory) *sessionstore.Session {
	b.Helper()
	return created(b, f, "user.id", "7", "user.name", "Ann", "n", 0, "chat.name", "Annie", "theme", "dark",
		"cart", []string{strings.Repeat("x", 100), strings.Repeat("y", 100)}, "locale", "de", "csrf", strings.Repeat("z", 64))
}

func BenchmarkLoad(b *testing.B) {
	rdb := redistest.Start(b).Client(b)
	ctx := b.Context()
	f := factory(b, rdb, sessionstore.Config{})
	gobs := factory(b, rdb, sessionstore.Config{Serializer: sessionstore.Gob(), KeyPrefix: "gob:"})
	s, g := typical(b, f), typical(b, gobs)
	app := newStock(b, rdb, plainJSON{})

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
