package wsredis_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
)

// A snapshot lets the operations go that it stands for, but for the newest. Who
// is further behind is told so, and gets the snapshot and all that came after.
func TestSnapshotTrims(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := startWith(t, s.Addr(), wsredis.Config{Replica: "a", KeepOperations: 5000, Tick: slow})
		admin := s.Client(t)
		length := func() int64 { return admin.XLen(t.Context(), "tandem:log:{doc:d}").Val() }
		history := func(since ws.Position) ws.History {
			t.Helper()
			h, err := a.History(t.Context(), doc, &since, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		const count, at = 1500, 1450
		var epoch string
		for i := range count {
			epoch = appendOne(t, a, fmt.Sprint(i)).Epoch
		}
		keep := func(seq uint64) {
			t.Helper()
			if err := a.KeepSnapshot(t.Context(), doc, ws.Position{Epoch: epoch, Seq: seq}, json.RawMessage(`"all"`)); err != nil {
				t.Fatal(err)
			}
		}
		keep(1000)
		if n := length(); n != count {
			t.Errorf("%d operations are left of %d", n, count)
		}
		keep(at)
		if n := length(); n < count-at+1000 || n > count-at+1100 {
			t.Errorf("%d operations are left of %d", n, count)
		}
		for since, recovered := range map[uint64]bool{0: false, 300: false, at - 1000: true, at: true, count: true} {
			h := history(ws.Position{Epoch: epoch, Seq: since})
			first := since
			if !recovered {
				first = at
			}
			if h.Recovered != recovered || (h.Snapshot == nil) != recovered || uint64(len(h.Entries)) != count-first ||
				len(h.Entries) > 0 && h.Entries[0].Seq != first+1 {
				t.Errorf("since %d: recovered %t, %d entries, snapshot %s", since, h.Recovered, len(h.Entries), h.Snapshot)
			}
		}
		if again := appendOne(t, a, "7"); !again.Duplicate || again.Seq != 8 {
			t.Errorf("an operation that was trimmed, again: %+v", again)
		}
		if next := appendOne(t, a, "next"); next.Epoch != epoch || next.Seq != count+1 {
			t.Errorf("after it: %+v", next)
		}
	})
}
