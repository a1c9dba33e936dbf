package wsredis_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
)

// IDs are known for 24 hours at any time of day, and not for ever.
func TestDeduplicationOverDays(t *testing.T) {
	m := miniredis.RunT(t)
	now := time.Date(2030, 1, 1, 0, 0, 1, 0, time.UTC)
	m.SetTime(now)
	a := start(t, "a", m.Addr())
	pass := func(d time.Duration) {
		now = now.Add(d)
		m.SetTime(now)
		m.FastForward(d)
	}
	for range 5 { // five days in a row, at different times of day
		id := now.String()
		first := appendOne(t, a, id)
		pass(23*time.Hour + 59*time.Minute)
		if again := appendOne(t, a, id); !again.Duplicate || again.Seq != first.Seq {
			t.Fatalf("%s after a day: %+v", id, again)
		}
		pass(6 * time.Hour)
	}
	first := appendOne(t, a, "old")
	pass(37 * time.Hour)
	if again := appendOne(t, a, "old"); again.Duplicate || again.Seq != first.Seq+1 {
		t.Errorf("after 37 hours: %+v", again)
	}
}

// A failover goes back to a copy that lacks the newest operation. Nobody
// writes: the tick of a replica that has seen it finds out.
func TestFailoverFoundByTick(t *testing.T) {
	s := redistest.Start(t)
	a, admin := start(t, "a", s.Addr()), s.Client(t)
	onA := subscribe(t, a, doc)
	kept := appendOne(t, a, "1")
	copies := map[string]string{}
	for _, key := range allKeys(t, admin) {
		copies[key] = admin.Dump(t.Context(), key).Val()
	}
	onA.Wait(t, "the operation", has(appendOne(t, a, "2").Position))

	for key, value := range copies {
		if err := admin.RestoreReplace(t.Context(), key, time.Hour, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	onA.Wait(t, "a gap", gap)
	h, err := a.History(t.Context(), doc, nil, 1<<20)
	if err != nil || h.Epoch == kept.Epoch || h.Head != 1 || len(h.Entries) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	again, err := a.Append(t.Context(), doc, ws.Operation{ID: "2", UserID: "7"}, ws.Position{})
	if err != nil || again.Duplicate || again.Seq != 2 || again.Epoch != h.Epoch {
		t.Errorf("the lost operation sent again: %+v, %v", again, err)
	}
}
