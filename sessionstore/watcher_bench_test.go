package sessionstore

import (
	"context"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// BenchmarkIdleWatcher reports what a replica with 1,000 bound sessions that
// nobody uses costs Redis, with the defaults: commands/s. One iteration is
// ten seconds, two verifications.
func BenchmarkIdleWatcher(b *testing.B) {
	s := redistest.Start(b)
	f, err := New(s.Client(b), Config{})
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWatcher(f, WatchConfig{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ran := make(chan error)
	go func() { ran <- w.Run(ctx) }()
	r := replica{f, w}
	for range 1000 {
		r.bind(b, r.open(b, "Ann").ID())
	}
	until(b, "the watcher is healthy", func() bool { return w.Healthy() == nil })

	observer := s.Client(b)
	before, began := commands(b, observer), time.Now()
	for b.Loop() {
		time.Sleep(10 * time.Second)
	}
	spent := commands(b, observer) - before - 1 // less the INFO itself
	b.ReportMetric(float64(spent)/time.Since(began).Seconds(), "commands/s")
	stop()
	if err := <-ran; err != nil {
		b.Fatal(err)
	}
}

// commands is how many commands the server has processed.
func commands(tb testing.TB, rdb *redis.Client) int {
	tb.Helper()
	info, err := rdb.Info(context.Background(), "stats").Result()
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(regexp.MustCompile(`total_commands_processed:(\d+)`).FindStringSubmatch(info)[1])
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// BenchmarkVerify is one comparison of 1,000 bound sessions with Redis.
func BenchmarkVerify(b *testing.B) {
	s := redistest.Start(b)
	r := watchFrom(b, s.Client(b), Config{}, WatchConfig{VerifyEvery: never})
	for range 1000 {
		r.bind(b, r.open(b, "Ann").ID())
	}
	for b.Loop() {
		r.w.scan(b.Context())
	}
}
