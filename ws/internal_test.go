package ws

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func FuzzDecodeRequest(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ping"}`, `{"type":"operation","id":"a","payload":{"x":[1,2,{"y":null}]}}`,
		`{"type":"join_document","since":{"epoch":"e","seq":18446744073709551615}}`,
		`{"type":"session_set","set":{"chat.name":"\ud800"},"delete":["x"]}`,
		`[]`, `null`, `""`, `{`, `{"type":1}`, `{"id":"` + strings.Repeat("x", 65) + `"}`,
		`{"a":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `,"type":"x"}`, "\xff", `{"type":"\"]]]["}`, "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeRequest(data)
		if len(req.ID) > maxIDBytes || !utf8.ValidString(req.ID) {
			t.Errorf("id %q", req.ID)
		}
		if err != nil {
			if err.Error() == "" || !utf8.ValidString(err.Error()) {
				t.Errorf("message %q", err)
			}
			return
		}
		if req.Type == "" || !json.Valid(data) || firstByte(data) != '{' {
			t.Errorf("accepted %q", data)
		}
		var body struct {
			Since   *Position       `json:"since"`
			Payload json.RawMessage `json:"payload"`
		}
		if req.body(&body) == nil && body.Payload != nil && !json.Valid(body.Payload) {
			t.Errorf("payload %q", body.Payload)
		}
	})
}

func TestEveryCloseCodeHasARetryRule(t *testing.T) {
	comeBack := []CloseCode{1001, 1006, 1012, 4429, 4503}
	for _, c := range []CloseCode{
		CloseGoingAway, closeAbnormal, CloseTooBig, CloseRestart, CloseProtocol, CloseUnauthorized, CloseForbidden,
		CloseAuthTimeout, CloseSideTaken, CloseTooMuch, CloseRedisAwayLong,
	} {
		if c.Retry() != slices.Contains(comeBack, c) {
			t.Errorf("%d: %v", c, c.Retry())
		}
	}
}

// The ring against a plain list: every reader gets what the list has at its
// cursor, or hears how many are gone.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 70).Draw(t, "size")
		r := newRing(size)
		r.maxBytes = rapid.SampledFrom([]int{100, 10_000}).Draw(t, "bytes")
		var all []*frame
		var cursor, trimmed uint64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "trim") == 0 {
				oldest := r.tail.Load()
				r.trim(min(oldest+rapid.Uint64Range(0, 4).Draw(t, "gone"), r.head.Load()))
				trimmed = max(trimmed, r.tail.Load())
			}
			if rapid.Bool().Draw(t, "push") {
				f := &frame{wire: make([]byte, rapid.IntRange(0, 150).Draw(t, "bytes"))}
				r.push(f)
				all = append(all, f)
			}
			kept, bytes := 0, 0
			for _, f := range slices.Backward(all) {
				if f.place < trimmed || kept == size || kept > 0 && bytes+len(f.wire) > r.maxBytes {
					break
				}
				kept++
				bytes += len(f.wire)
			}
			if !rapid.Bool().Draw(t, "read") {
				continue
			}
			f, lost := r.at(cursor)
			oldest := uint64(len(all) - kept)
			switch {
			case max(cursor, oldest) == uint64(len(all)):
				if f != nil || lost != 0 {
					t.Fatalf("%v, %d from an empty ring", f, lost)
				}
			case f != all[max(cursor, oldest)] || lost != max(cursor, oldest)-cursor:
				t.Fatalf("cursor %d: place %d, lost %d; oldest is %d of %d", cursor, f.place, lost, oldest, len(all))
			default:
				cursor = f.place + 1
			}
		}
	})
}

// However changes are merged into frames, whoever follows the frames has the
// same people present as whoever follows the changes.
func TestMergeLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth, told := newRoster(), newRoster()
		var m merge
		for i := range rapid.IntRange(1, 100).Draw(t, "steps") {
			member := Member{ConnectionID: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "who")), Color: fmt.Sprint(i)}
			var c PresenceChange
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				c.Joined = []Member{member}
			case 1:
				c.Updated = []Member{member}
			case 2:
				c.Left = []Departure{{Member: member}}
			case 3:
				frame := m.take()
				seen := map[string]bool{}
				for _, id := range idsOf(frame) {
					if seen[id] {
						t.Fatalf("%s twice in %+v", id, frame)
					}
					seen[id] = true
				}
				if rapid.Bool().Draw(t, "fails") {
					m.addEarlier(frame)
				} else {
					told.apply(frame)
				}
			}
			truth.apply(c)
			m.add(c)
		}
		told.apply(m.take())
		if !maps.EqualFunc(truth.members, told.members, func(a, b Member) bool { return a.Color == b.Color }) {
			t.Fatalf("told %v, not %v", told, truth)
		}
	})
}

func idsOf(c PresenceChange) (ids []string) {
	for _, m := range slices.Concat(c.Joined, c.Updated) {
		ids = append(ids, m.ConnectionID)
	}
	for _, d := range c.Left {
		ids = append(ids, d.ConnectionID)
	}
	return ids
}

func TestBucket(t *testing.T) {
	b, now := newBucket(10), time.Now()
	for range 20 {
		if _, ok := b.take(now); !ok {
			t.Fatal("the burst is refused")
		}
	}
	if wait, ok := b.take(now); ok || wait != 100*time.Millisecond {
		t.Errorf("wait %v, %v", wait, ok)
	}
	if _, ok := b.take(now.Add(100 * time.Millisecond)); !ok {
		t.Error("refused after the wait")
	}
	var none bucket
	if _, ok := none.take(now); !ok {
		t.Error("refused without a limit")
	}
}

func TestColors(t *testing.T) {
	seen := map[string]bool{}
	for i := range 1000 {
		c := colorOf(fmt.Sprint(i))
		if !regexp.MustCompile(`^#[0-9a-f]{6}$`).MatchString(c) {
			t.Fatalf("color %q", c)
		}
		seen[c] = true
	}
	if len(seen) < 200 {
		t.Errorf("%d colours", len(seen))
	}
}

func TestCursorAfterHistory(t *testing.T) {
	d := &document{operations: newRing(4)}
	for seq := uint64(11); seq <= 18; seq++ { // the ring keeps 15 to 18
		d.operations.push(&frame{position: Position{"e", seq}, wire: wired(nil)})
	}
	for seen, want := range map[uint64]struct{ next, lost uint64 }{
		18: {0, 0}, 20: {0, 0}, 17: {18, 0}, 14: {15, 0}, 12: {15, 1}, 3: {15, 1},
	} {
		f, lost := d.operations.at(d.cursorAfterLocked(Position{"e", seen}))
		if want.next == 0 && f != nil || want.next != 0 && (f == nil || f.position.Seq != want.next) || lost != want.lost {
			t.Errorf("after %d: %+v, lost %d", seen, f, lost)
		}
	}
	if f, _ := d.operations.at(d.cursorAfterLocked(Position{"later life", 2})); f != nil {
		t.Errorf("an operation of another life: %+v", f.position)
	}
}

// What every member has been sent goes with the second trimming after it; what one has not stays.
func TestTrim(t *testing.T) {
	d := &document{operations: newRing(1024), presence: newRing(4), members: map[*conn]Member{}}
	quick, slow := &conn{}, &conn{}
	d.members[quick], d.members[slow] = Member{}, Member{}
	for seq := range uint64(40) {
		d.operations.push(&frame{position: Position{"e", seq + 1}, wire: wired(nil)})
	}
	quick.out.opCursor, slow.out.opCursor = 40, 7
	t.Cleanup(func() {
		if d.trimming != nil {
			d.trimming.Stop()
		}
	})
	kept := func() uint64 { return d.operations.head.Load() - d.operations.tail.Load() }
	for i, want := range []uint64{40, 33} {
		if d.trim(); kept() != want {
			t.Errorf("trimming %d keeps %d, want %d", i, kept(), want)
		}
	}
	if f, lost := d.operations.at(7); f == nil || f.position.Seq != 8 || lost != 0 {
		t.Errorf("the slow one gets %+v, and has lost %d", f, lost)
	}
	slow.out.opCursor = 40
	if d.trim(); kept() != 0 || d.operations.bytes != 0 || d.trimming != nil {
		t.Errorf("%d frames, %d bytes kept, timer %v", kept(), d.operations.bytes, d.trimming)
	}
}
