package redisconn

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// BenchmarkGet is one command through a Conn against the same through a bare
// go-redis client.
func BenchmarkGet(b *testing.B) {
	s := redistest.Start(b)
	conn := open(b, Config{URL: s.URL()})
	for name, rdb := range map[string]redis.UniversalClient{"conn": conn.Client(), "go-redis": s.Client(b)} {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := rdb.Get(ctx, "k").Err(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefusal is one command while Redis is down.
func BenchmarkRefusal(b *testing.B) {
	s := redistest.Start(b)
	s.Kill()
	rdb := open(b, Config{URL: s.URL()}).Client()
	b.ReportAllocs()
	for b.Loop() {
		if err := rdb.Get(context.Background(), "k").Err(); !IsUnavailable(err) {
			b.Fatal(err)
		}
	}
}
