package wsredis_test

import (
	"fmt"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
)

// BenchmarkPairRelay is one batch from side to side: posted, taken, confirmed
// with the next.
func BenchmarkPairRelay(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := startPairs(b, "bench", redistest.Start(b).Addr())
			left, right := mustClaim(b, p, ws.Left, "left"), mustClaim(b, p, ws.Right, "right")
			state := left.met(0)
			messages := []ws.PairMessage{{Kind: ws.PairBinary, Data: make([]byte, size)}}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				n++
				if _, ok, err := left.Post(b.Context(), ws.PairPost{
					Unique: state.Unique, To: state.Counterpart, Number: n, Count: 1, Messages: messages,
				}); err != nil || !ok {
					b.Fatal(ok, err)
				}
				if next, _, ok, err := right.Take(b.Context(), state.Unique, n-1); err != nil || !ok || next != n {
					b.Fatal(next, ok, err)
				}
			}
		})
	}
}
