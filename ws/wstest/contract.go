package wstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// Pair is two replicas that share one store, and what can happen to it.
type Pair struct {
	A, B ws.Backplane

	// Keep is the length to which logs are trimmed, roughly.
	Keep int

	// LoseLog makes the store forget the document's log and its snapshot.
	LoseLog func(document string)

	// KillA ends replica A as a crash does.
	KillA func()
}

// Contract runs what every Backplane must pass. open makes a fresh pair for
// each subtest and cleans up with the test.
func Contract(t *testing.T, open func(t *testing.T) Pair) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Pair)
	}{
		{"numbers without a gap", testNumbers},
		{"one frame everywhere", testFrames},
		{"payload keeps its bytes", testPayloads},
		{"deduplicates", testDeduplication},
		{"history", testHistory},
		{"history by pages", testPages},
		{"trimmed history", testTrimmed},
		{"snapshot", testSnapshot},
		{"lost log", testLostLog},
		{"lost operations", testLostOperations},
		{"subscription misses nothing", testSubscription},
		{"unsubscribe", testUnsubscribe},
		{"one subscription a document", testSecondSubscription},
		{"presence", testPresence},
		{"member replaced from elsewhere", testReplaced},
		{"dead replica", testDeadReplica},
		{"ended context", testEndedContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// docOf names the subtest's document, so that nothing of another is in it.
func docOf(t *testing.T) string {
	return strings.Map(func(r rune) rune {
		if r == '/' {
			return ':'
		}
		return r
	}, t.Name())
}

func operation(id string) ws.Operation {
	return ws.Operation{
		ID: id, UserID: "7", ConnectionID: "conn", Payload: json.RawMessage(`{"insert":"x"}`),
		At: time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC),
	}
}

func mustAppend(t *testing.T, b ws.Backplane, op ws.Operation) ws.Ack {
	t.Helper()
	ack, err := b.Append(t.Context(), docOf(t), op, ws.Position{})
	if err != nil {
		t.Fatalf("append %q: %v", op.ID, err)
	}
	return ack
}

func mustHistory(t *testing.T, b ws.Backplane, since *ws.Position, maxBytes int) ws.History {
	t.Helper()
	h, err := b.History(t.Context(), docOf(t), since, maxBytes)
	if err != nil {
		t.Fatalf("history: %v", err)
	}
	return h
}

func mustSubscribe(t *testing.T, b ws.Backplane) (*Recorder, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := NewRecorder()
	unsubscribe, err := b.Subscribe(ctx, docOf(t), r)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	return r, unsubscribe
}

const plenty = 1 << 30 // bytes of history

func testNumbers(t *testing.T, p Pair) {
	const callers, each = 8, 25
	seen := make([]bool, callers*each+1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range callers {
		b := p.A
		if c%2 == 1 {
			b = p.B
		}
		wg.Go(func() {
			var last uint64
			for i := range each {
				ack, err := b.Append(t.Context(), docOf(t), operation(fmt.Sprintf("%d-%d", c, i)), ws.Position{})
				if err != nil || ack.Duplicate || ack.Seq <= last || ack.Seq >= uint64(len(seen)) {
					t.Errorf("append after %d: %+v, %v", last, ack, err)
					return
				}
				last = ack.Seq
				mu.Lock()
				if seen[ack.Seq] {
					t.Errorf("seq %d was given twice", ack.Seq)
				}
				seen[ack.Seq] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	h := mustHistory(t, p.B, nil, plenty)
	if h.Head != callers*each || !h.Recovered || h.More {
		t.Fatalf("history: head %d, recovered %v, more %v", h.Head, h.Recovered, h.More)
	}
	checkSequence(t, h, 1)
}

// checkSequence fails unless the entries run from first to the head.
func checkSequence(t *testing.T, h ws.History, first uint64) {
	t.Helper()
	for i, e := range h.Entries {
		if e.Seq != first+uint64(i) {
			t.Fatalf("entry %d has seq %d, not %d", i, e.Seq, first+uint64(i))
		}
	}
	if want := h.Head + 1 - first; uint64(len(h.Entries)) != want {
		t.Fatalf("%d entries, not %d", len(h.Entries), want)
	}
}

func testFrames(t *testing.T, p Pair) {
	onA, stopA := mustSubscribe(t, p.A)
	defer stopA()
	onB, stopB := mustSubscribe(t, p.B)
	defer stopB()
	ack := mustAppend(t, p.A, operation("1"))
	has := func(r Recorded) bool { return r.Has(ack.Position) }
	a := onA.Wait(t, "the operation on A", has).Operations[0]
	b := onB.Wait(t, "the operation on B", has).Operations[0]
	kept := mustHistory(t, p.B, nil, plenty).Entries[0]

	want := fmt.Sprintf(`{"type":"operation","epoch":%q,"seq":1,"id":"1","connection_id":"conn","user_id":"7",`+
		`"payload":{"insert":"x"},"at":"2030-01-02T03:04:05.678Z"}`, ack.Epoch)
	for where, got := range map[string][]byte{"A": a.Frame, "B": b.Frame, "history": kept.Frame} {
		if string(got) != want {
			t.Errorf("frame on %s: %s\nnot: %s", where, got, want)
		}
	}
}

func testPayloads(t *testing.T, p Pair) {
	for i, payload := range []string{
		`9007199254740993`, `-1e400`, `0.10`, `null`, `true`, `""`, `"\u0000\ud83d\ude00 <&> 😀 \/"`,
		` { "b" : 1 , "a" : [ ] , "b" : 2 } `, strings.Repeat("[", 500) + strings.Repeat("]", 500),
		`"` + strings.Repeat("x", 60<<10) + `"`,
	} {
		op := operation(fmt.Sprint(i))
		op.Payload = json.RawMessage(payload)
		at := mustAppend(t, p.A, op).Position
		at.Seq--
		h := mustHistory(t, p.B, &at, plenty)
		if len(h.Entries) != 1 {
			t.Fatalf("%d entries after %v", len(h.Entries), at)
		}
		if !strings.Contains(string(h.Entries[0].Frame), `"payload":`+payload+`,"at"`) {
			t.Errorf("payload %.60s became %.300s", payload, h.Entries[0].Frame)
		}
		if !json.Valid(h.Entries[0].Frame) {
			t.Errorf("frame is not JSON: %.300s", h.Entries[0].Frame)
		}
	}
}

func testDeduplication(t *testing.T, p Pair) {
	first := mustAppend(t, p.A, operation("same"))
	mustAppend(t, p.A, operation("other"))
	again := mustAppend(t, p.B, operation("same"))
	if !again.Duplicate || again.Position != first.Position {
		t.Errorf("again: %+v, first %+v", again, first)
	}
	foreign := operation("same")
	foreign.UserID = "8"
	if ack := mustAppend(t, p.B, foreign); ack.Duplicate {
		t.Error("another user's ID counts as a duplicate")
	}

	// Many at once: one of them is the first.
	var wg sync.WaitGroup
	acks := make([]ws.Ack, 10)
	for i := range acks {
		wg.Go(func() {
			b := p.A
			if i%2 == 1 {
				b = p.B
			}
			acks[i], _ = b.Append(t.Context(), docOf(t), operation("race"), ws.Position{})
		})
	}
	wg.Wait()
	firsts := 0
	for _, ack := range acks {
		if !ack.Duplicate {
			firsts++
		}
		if ack.Position != acks[0].Position {
			t.Errorf("one operation at %v and %v", ack.Position, acks[0].Position)
		}
	}
	if firsts != 1 {
		t.Errorf("appended %d times", firsts)
	}
	if h := mustHistory(t, p.A, nil, plenty); h.Head != 4 {
		t.Errorf("head is %d", h.Head)
	}
}

func testEndedContext(t *testing.T, p Pair) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.A.Append(ctx, docOf(t), operation("1"), ws.Position{}); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
	if _, err := p.A.History(ctx, docOf(t), nil, plenty); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("history: %v", err)
	}
	if _, err := p.A.Members(ctx, docOf(t)); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("members: %v", err)
	}
	if err := p.A.Announce(ctx, docOf(t), joined("1")); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("announce: %v", err)
	}
	if _, err := p.A.Subscribe(ctx, docOf(t), NewRecorder()); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("subscribe: %v", err)
	}
}
