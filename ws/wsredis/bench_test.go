package wsredis_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
)

// BenchmarkAppend compares an operation with what cannot be had for less: a
// script that does nothing, and a bare XADD of the same bytes.
func BenchmarkAppend(b *testing.B) {
	s := redistest.Start(b)
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true, PoolSize: 64})
	defer client.Close()
	backplane, err := wsredis.New(wsredis.Config{Client: client, Replica: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	nothing := redis.NewScript("return {'e', 1, 0}")
	payload := []byte(`{"insert":"some text","at":12345}`)
	var id atomic.Int64
	for _, callers := range []int{1, 64} {
		for name, do := range map[string]func() error{
			"append": func() error {
				_, err := backplane.Append(ctx, "d", ws.Operation{
					ID: strconv.FormatInt(id.Add(1), 36), UserID: "7", ConnectionID: "c", Payload: payload,
				}, ws.Position{})
				return err
			},
			"evalsha": func() error {
				return nothing.Run(ctx, client, []string{"k"}, payload).Err()
			},
			"xadd": func() error {
				return client.XAdd(ctx, &redis.XAddArgs{
					Stream: "bench", MaxLen: 10_000, Approx: true, Values: []any{"f", payload},
				}).Err()
			},
		} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/2))
				if callers == 1 {
					for b.Loop() {
						if err := do(); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := do(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// BenchmarkHistory reads what a newcomer gets: a full reply of 1 MiB.
func BenchmarkHistory(b *testing.B) {
	s := redistest.Start(b)
	client := s.Client(b)
	backplane, err := wsredis.New(wsredis.Config{Client: client, Replica: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for i := range 10_000 {
		op := ws.Operation{ID: strconv.Itoa(i), UserID: "7", Payload: []byte(`{"insert":"some text","at":12345}`)}
		if _, err := backplane.Append(ctx, "d", op, ws.Position{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := backplane.History(ctx, "d", nil, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}
