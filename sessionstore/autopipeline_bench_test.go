package sessionstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// BenchmarkAutoPipeline is what decisions/0008 is about: 64 callers that read
// as a load does, each over a connection of its own or all over go-redis'
// AutoPipeline, without a pause and with some work between two reads, as
// requests have. It states the median a read takes, and its 99th percentile.
func BenchmarkAutoPipeline(b *testing.B) {
	srv := redistest.Start(b)
	for _, pause := range []time.Duration{0, 5 * time.Millisecond} {
		for _, shared := range []bool{false, true} {
			b.Run(fmt.Sprintf("pause=%s/shared=%t", pause, shared), func(b *testing.B) {
				rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), ContextTimeoutEnabled: true, PoolSize: 64})
				defer rdb.Close()
				must(b, rdb.Set(b.Context(), "v", strings.Repeat("x", 600), time.Hour).Err())
				read := func(ctx context.Context) error {
					pipe := rdb.Pipeline()
					pipe.MGet(ctx, "v", "end")
					pipe.PTTL(ctx, "v")
					return errOf(pipe.Exec(ctx))
				}
				if shared {
					ap, err := rdb.AsyncAutoPipeline()
					must(b, err)
					read = func(ctx context.Context) error {
						first, second := ap.MGet(ctx, "v", "end"), ap.PTTL(ctx, "v")
						must(b, first.Err())
						return second.Err()
					}
				}
				took := callers(b, 64, pause, read)
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkCrowd has many callers load sessions at a time over Tandem's own
// connection to Redis, which has at most 64 to a node. Beside the median and
// the 99th percentile of a load it states how many were made, and how often a
// caller had to wait for one.
func BenchmarkCrowd(b *testing.B) {
	srv := redistest.Start(b)
	for _, n := range []int{1, 64, 256} {
		for _, pause := range []time.Duration{0, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("callers=%d/pause=%s", n, pause), func(b *testing.B) {
				rdb := ownClient(b, srv)
				f := factory(b, rdb, sessionstore.Config{})
				id := typical(b, f).ID()
				took := callers(b, n, pause, func(ctx context.Context) error { return errOf(f.Load(ctx, id)) })
				slices.Sort(took)
				stats := rdb.PoolStats()
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(stats.TotalConns), "connections")
				b.ReportMetric(float64(stats.WaitCount)/float64(b.N), "waits/op")
			})
		}
	}
}

// callers shares b.N calls of do among n goroutines, which pause in between
// for about as long as they are told. It returns how long each call took.
func callers(b *testing.B, n int, pause time.Duration, do func(context.Context) error) []time.Duration {
	todo := make(chan struct{}, b.N)
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			var took []time.Duration
			for range todo {
				began := time.Now()
				if err := do(b.Context()); err != nil {
					b.Error(err)
				}
				took = append(took, time.Since(began))
				if pause > 0 {
					time.Sleep(rand.N(2 * pause))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	return all
}
