package wstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/seed-6230208e/tandem/ws"
)

func appendMany(t *testing.T, b ws.Backplane, from, to int) ws.Ack {
	t.Helper()
	var ack ws.Ack
	for i := from; i <= to; i++ {
		ack = mustAppend(t, b, operation(fmt.Sprint(i)))
	}
	return ack
}

func testHistory(t *testing.T, p Pair) {
	empty := mustHistory(t, p.A, nil, plenty)
	if empty.Epoch == "" || empty.Head != 0 || len(empty.Entries) != 0 || !empty.Recovered || empty.Snapshot != nil {
		t.Fatalf("a new document: %+v", empty)
	}
	last := appendMany(t, p.A, 1, 5)
	if last.Epoch != empty.Epoch {
		t.Error("the first operation began another epoch than the one told before")
	}
	at := func(epoch string, seq uint64) *ws.Position { return &ws.Position{Epoch: epoch, Seq: seq} }
	for _, c := range []struct {
		name      string
		since     *ws.Position
		first     uint64
		recovered bool
	}{
		{"from nothing", nil, 1, true},
		{"from the beginning", at(last.Epoch, 0), 1, true},
		{"from the middle", at(last.Epoch, 3), 4, true},
		{"from the head", at(last.Epoch, 5), 6, true},
		{"past the head", at(last.Epoch, 6), 1, false},
		{"another epoch", at("another", 3), 1, false},
		{"no epoch", at("", 0), 1, false},
	} {
		h := mustHistory(t, p.B, c.since, plenty)
		if h.Epoch != last.Epoch || h.Head != 5 || h.Recovered != c.recovered || h.More {
			t.Errorf("%s: epoch %s, head %d, recovered %v, more %v", c.name, h.Epoch, h.Head, h.Recovered, h.More)
		}
		checkSequence(t, h, c.first)
	}
}

func testPages(t *testing.T, p Pair) {
	appendMany(t, p.A, 1, 100)
	all := mustHistory(t, p.A, nil, plenty)
	size := len(all.Entries[99].Frame)
	var walked ws.History
	for since, pages := (*ws.Position)(nil), 1; ; pages++ {
		h := mustHistory(t, p.B, since, 7*size)
		if !h.Recovered || len(h.Entries) == 0 || len(h.Entries) > 8 {
			t.Fatalf("page %d: %d entries, recovered %v", pages, len(h.Entries), h.Recovered)
		}
		total := 0
		for _, e := range h.Entries {
			total += len(e.Frame)
		}
		if total > 7*size {
			t.Fatalf("page %d has %d bytes", pages, total)
		}
		walked.Entries = append(walked.Entries, h.Entries...)
		walked.Head = h.Head
		if !h.More {
			break
		}
		since = &ws.Position{Epoch: h.Epoch, Seq: h.Entries[len(h.Entries)-1].Seq}
	}
	checkSequence(t, walked, 1)

	if h := mustHistory(t, p.A, nil, 1); len(h.Entries) != 1 || !h.More {
		t.Errorf("a frame over the limit: %d entries, more %v", len(h.Entries), h.More)
	}
	if h := mustHistory(t, p.A, &ws.Position{Epoch: all.Epoch, Seq: 99}, 1); len(h.Entries) != 1 || h.More {
		t.Errorf("the last frame, over the limit: %d entries, more %v", len(h.Entries), h.More)
	}
}

func testTrimmed(t *testing.T, p Pair) {
	const slack = 200 // a store may trim by blocks
	last := appendMany(t, p.A, 1, p.Keep+slack)
	h := mustHistory(t, p.A, &ws.Position{Epoch: last.Epoch, Seq: 0}, plenty)
	if h.Recovered || len(h.Entries) < p.Keep || len(h.Entries) >= p.Keep+slack {
		t.Fatalf("recovered %v, %d entries of %d, keep %d", h.Recovered, len(h.Entries), h.Head, p.Keep)
	}
	first := h.Entries[0].Seq
	checkSequence(t, h, first)
	if h := mustHistory(t, p.B, &ws.Position{Epoch: last.Epoch, Seq: first - 1}, plenty); !h.Recovered {
		t.Error("the position before the first kept entry is not recovered")
	}
	if h := mustHistory(t, p.B, &ws.Position{Epoch: last.Epoch, Seq: first - 2}, plenty); h.Recovered {
		t.Error("the position before a trimmed entry is recovered")
	}
}

func testSnapshot(t *testing.T, p Pair) {
	last := appendMany(t, p.A, 1, 10)
	at := func(seq uint64) ws.Position { return ws.Position{Epoch: last.Epoch, Seq: seq} }
	payload := json.RawMessage(` {"n":9007199254740993,"s":"\u00e9 <"} `)
	if err := p.A.KeepSnapshot(t.Context(), docOf(t), at(4), payload); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]ws.Position{
		"past the head": at(11), "older than the kept": at(3), "another epoch": {Epoch: "another", Seq: 5},
	} {
		if err := p.B.KeepSnapshot(t.Context(), docOf(t), bad, payload); !errors.Is(err, ws.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := mustHistory(t, p.B, nil, plenty)
	if h.SnapshotSeq != 4 || string(h.Snapshot) != string(payload) || !h.Recovered {
		t.Errorf("snapshot %d %s, recovered %v", h.SnapshotSeq, h.Snapshot, h.Recovered)
	}
	checkSequence(t, h, 5)
	since := at(6)
	if h := mustHistory(t, p.B, &since, plenty); h.Snapshot != nil || h.SnapshotSeq != 4 || !h.Recovered {
		t.Errorf("snapshot sent to one who needs none: %+v", h)
	}
	since = at(99)
	if h := mustHistory(t, p.B, &since, plenty); h.Snapshot == nil || h.Recovered {
		t.Error("everything kept includes the snapshot")
	}
	if err := p.B.KeepSnapshot(t.Context(), docOf(t), at(10), json.RawMessage(`2`)); err != nil {
		t.Error(err)
	}
	if h := mustHistory(t, p.A, nil, plenty); string(h.Snapshot) != "2" || len(h.Entries) != 0 || !h.Recovered {
		t.Errorf("snapshot at the head: %+v", h)
	}
}

func testLostLog(t *testing.T, p Pair) {
	onB, stop := mustSubscribe(t, p.B)
	defer stop()
	last := appendMany(t, p.A, 1, 3)
	onB.Wait(t, "the operations", func(r Recorded) bool { return r.Has(last.Position) })
	if err := p.A.KeepSnapshot(t.Context(), docOf(t), last.Position, json.RawMessage(`1`)); err != nil {
		t.Fatal(err)
	}

	p.LoseLog(docOf(t))
	onB.Wait(t, "a gap", func(r Recorded) bool { return r.Gaps > 0 }) // without anybody writing
	h := mustHistory(t, p.B, &last.Position, plenty)
	if h.Epoch == last.Epoch || h.Head != 0 || h.Recovered || h.Snapshot != nil || len(h.Entries) != 0 {
		t.Fatalf("after the loss of everything: %+v", h)
	}
	ack, err := p.A.Append(t.Context(), docOf(t), operation("1"), last.Position)
	if err != nil || ack.Seq != 1 || ack.Duplicate || ack.Epoch != h.Epoch {
		t.Errorf("an operation sent again: %+v, %v", ack, err)
	}
	onB.Wait(t, "it on B", func(r Recorded) bool { return r.Has(ack.Position) })
}

func testLostOperations(t *testing.T, p Pair) {
	onB, stop := mustSubscribe(t, p.B)
	defer stop()
	last := appendMany(t, p.A, 1, 3)
	ahead := ws.Position{Epoch: last.Epoch, Seq: 5} // seen before a failover lost 4 and 5
	ack, err := p.A.Append(t.Context(), docOf(t), operation("6"), ahead)
	if err != nil || ack.Epoch == last.Epoch || ack.Seq != 4 || ack.Duplicate {
		t.Fatalf("after the loss: %+v, %v", ack, err)
	}
	onB.Wait(t, "a gap", func(r Recorded) bool { return r.Gaps > 0 })
	h := mustHistory(t, p.B, nil, plenty)
	if h.Epoch != ack.Epoch {
		t.Errorf("history is in epoch %s, not %s", h.Epoch, ack.Epoch)
	}
	checkSequence(t, h, 1) // what survived belongs to the new epoch
	for _, e := range h.Entries {
		if at, ok := ws.ParseOperationHead(e.Frame); !ok || at != (ws.Position{Epoch: ack.Epoch, Seq: e.Seq}) {
			t.Errorf("frame of %d says %v", e.Seq, at)
		}
	}
	if again := mustAppend(t, p.B, operation("2")); !again.Duplicate || again.Seq != 2 {
		t.Errorf("a survivor sent again: %+v", again)
	}
}
