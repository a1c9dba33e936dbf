package ws_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestOperationsInOneOrderOverTwoReplicas(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada, bob := w.login("7"), w.login("8")
	onA, _ := a.join("d", ada)
	onB, _ := b.join("d", bob)
	outside := b.open("d", bob) // authenticated, not joined
	unknown := b.dial("d", bob) // not even that

	const each = 100
	var wg sync.WaitGroup
	for _, c := range []*wstest.Client{onA, onB} {
		wg.Go(func() {
			for i := range each {
				c.SendOperation(fmt.Sprintf("%s-%d", c.ID, i), map[string]int{"n": i})
			}
		})
	}
	wg.Wait()
	order := map[uint64]string{}
	for _, c := range []*wstest.Client{onA, onB} {
		for seq := uint64(1); seq <= 2*each; seq++ {
			op := c.ExpectOperation()
			if op.Seq != seq {
				t.Fatalf("seq %d, not %d", op.Seq, seq)
			}
			if known, ok := order[seq]; ok && known != op.ID {
				t.Fatalf("seq %d is %s and %s", seq, known, op.ID)
			}
			order[seq] = op.ID
		}
		for i := range each { // acknowledged in the order they were sent
			var ack wstest.Ack
			c.Expect("ack").Decode(t, &ack)
			if want := fmt.Sprintf("%s-%d", c.ID, i); ack.Re != want || ack.Duplicate || order[ack.Seq] != want {
				t.Fatalf("ack %+v, not of %s", ack, want)
			}
		}
	}
	outside.SendText(`{"type":"ping"}`)
	outside.Expect("pong")
	unknown.SendText(`{"type":"ping"}`)
	unknown.ExpectError("AUTH_REQUIRED")
	for _, c := range []*wstest.Client{outside, unknown} {
		for _, f := range c.Received() {
			t.Errorf("not joined, but received %s", f.Raw)
		}
	}
}

func TestOperationFrame(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	payload := `{ "big":9007199254740993, "text":"<é>\n" }`
	c.SendText(`{"type":"operation","id":"a","payload":` + payload + `}`)
	f := c.ExpectBroadcast("operation")
	if !strings.Contains(string(f.Raw), payload) {
		t.Errorf("the payload's bytes changed: %s", f.Raw)
	}
	var op wstest.Operation
	f.Decode(t, &op)
	if op.ID != "a" || op.UserID != "7" || op.ConnectionID != c.ID || op.Seq != 1 || time.Since(op.At) > time.Minute {
		t.Errorf("%+v", op)
	}
	c.SendText(`{"type":"operation","id":"null","payload":null}`)
	c.ExpectReply("null")
}

func TestDuplicateIsAcknowledgedAndNotBroadcast(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada := w.login("7")
	c, _ := a.join("d", ada)
	first := c.Operate("same", 1)
	c.Cut()
	c, _ = b.join("d", ada)
	again := c.Operate("same", 1)
	if !again.Duplicate || again.Seq != first.Seq || again.Epoch != first.Epoch {
		t.Errorf("%+v after %+v", again, first)
	}
	c.Operate("next", 2)
	if op := c.ExpectOperation(); op.ID != "next" || op.Seq != 2 {
		t.Errorf("%+v", op)
	}
}

func TestHistoryForNewcomers(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c, _ := r.join("d", ada)
	for i := range 10 {
		c.Operate(fmt.Sprint(i), i)
	}
	c.SendText(`{"type":"snapshot","id":"s","seq":4,"payload":{"text":"<four>"}}`)
	var ack wstest.Ack
	c.ExpectReply("s").Decode(t, &ack)
	if ack.Seq != 4 {
		t.Errorf("%+v", ack)
	}
	c.SendText(`{"type":"snapshot","id":"old","seq":3,"payload":1}`)
	if e := c.ExpectError("CONFLICT"); e.Re != "old" {
		t.Errorf("%+v", e)
	}

	_, all := r.join("d", ada)
	if all.Snapshot == nil || all.Snapshot.Seq != 4 || string(all.Snapshot.Payload) != `{"text":"<four>"}` {
		t.Errorf("snapshot %+v", all.Snapshot)
	}
	checkRun(t, all.Entries, 5, 10)

	resumed := r.open("d", ada).Join(&ws.Position{Epoch: all.Epoch, Seq: 7})
	if !resumed.Recovered || resumed.Snapshot != nil || resumed.Seq != 10 {
		t.Errorf("resumed: %+v", resumed)
	}
	checkRun(t, resumed.Entries, 8, 10)

	for _, bad := range []ws.Position{{Epoch: "another", Seq: 7}, {Epoch: all.Epoch, Seq: 11}} {
		j := r.open("d", ada).Join(&bad)
		if j.Recovered || j.Snapshot == nil {
			t.Errorf("since %+v: %+v", bad, j)
		}
		checkRun(t, j.Entries, 5, 10)
	}
	synced := c.Sync(ws.Position{Epoch: all.Epoch, Seq: 8})
	if synced.From != 9 || synced.To != 10 || !synced.Recovered || synced.More {
		t.Errorf("synced: %+v", synced)
	}
	checkRun(t, synced.Entries, 9, 10)
}

func TestLongHistoryComesInPages(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	ada := w.login("7")
	c, _ := r.join("d", ada)
	payload := strings.Repeat("x", 60<<10)
	const count = 40 // 2.4 MB
	for i := range count {
		c.Operate(fmt.Sprint(i), payload)
	}
	late, page := r.join("d", ada)
	var got []wstest.Operation
	for pages := 1; ; pages++ {
		got = append(got, page.Entries...)
		if !page.More {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		last := got[len(got)-1]
		page = late.Sync(ws.Position{Epoch: last.Epoch, Seq: last.Seq})
	}
	checkRun(t, got, 1, count)
}

func checkRun(t *testing.T, ops []wstest.Operation, first, last uint64) {
	t.Helper()
	for i, op := range ops {
		if op.Seq != first+uint64(i) {
			t.Fatalf("operation %d has seq %d, not %d", i, op.Seq, first+uint64(i))
		}
	}
	if uint64(len(ops)) != last+1-first {
		t.Fatalf("%d operations, not %d to %d", len(ops), first, last)
	}
}

// Join while operations flow: what the reply holds and what is broadcast
// after it make one run, without a gap and without a repetition.
func TestJoinUnderLoad(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada := w.login("7")
	writer, _ := a.join("d", ada)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				writer.Operate(fmt.Sprint(i), i)
			}
		}
	})
	for i := range 20 {
		c, joined := []*replica{a, b}[i%2].join("d", ada)
		next := uint64(1)
		for _, op := range joined.Entries {
			if op.Seq != next {
				t.Fatalf("history has %d, not %d", op.Seq, next)
			}
			next++
		}
		if joined.Seq != next-1 {
			t.Fatalf("head %d after %d operations", joined.Seq, next-1)
		}
		for range 20 {
			if op := c.ExpectOperation(); op.Seq != next {
				t.Fatalf("broadcast %d, not %d", op.Seq, next)
			}
			next++
		}
		c.Cut()
	}
	close(stop)
	wg.Wait()
}

func TestFaultyAnnouncements(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(*wstest.Replica)
	}{
		{"lost in the middle", func(r *wstest.Replica) { r.Drop(3) }},
		{"duplicated", func(r *wstest.Replica) { r.Duplicate(true) }},
		{"late", func(r *wstest.Replica) { r.Delay(20 * time.Millisecond) }},
		{"later than the ack", func(r *wstest.Replica) { r.Delay(300 * time.Millisecond) }},
		{"all lost", func(r *wstest.Replica) { r.Drop(1 << 30) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.replica(nil), w.replica(nil)
			ada := w.login("7")
			onA, _ := a.join("d", ada)
			onB, _ := b.join("d", ada)
			onB.Operate("first", 0)
			test.fault(b.backplane)
			for i := range 5 {
				onA.Operate(fmt.Sprint(i), i)
			}
			onB.Operate("last", 0)
			for _, c := range []*wstest.Client{onA, onB} {
				for seq := uint64(1); seq <= 7; seq++ {
					if op := c.ExpectOperation(); op.Seq != seq {
						t.Fatalf("seq %d, not %d", op.Seq, seq)
					}
				}
				c.SendText(`{"type":"ping"}`)
				c.Expect("pong")
				for _, f := range c.Received() {
					if f.Type == "operation" || f.Type == "lagged" {
						t.Errorf("too much: %s", f.Raw)
					}
				}
			}
		})
	}
}

func TestGapIsRepairedWithoutFurtherOperations(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada := w.login("7")
	onA, _ := a.join("d", ada)
	onB, _ := b.join("d", ada)
	b.backplane.SetUnavailable(true)
	for i := range 3 {
		onA.Operate(fmt.Sprint(i), i)
	}
	onB.SendOperation("mine", 0)
	if e := onB.ExpectError("UNAVAILABLE"); e.Re != "mine" || e.RetryAfterMS <= 0 {
		t.Errorf("%+v", e)
	}
	b.backplane.SetUnavailable(false)
	for seq := uint64(1); seq <= 3; seq++ {
		if op := onB.ExpectOperation(); op.Seq != seq {
			t.Fatalf("seq %d, not %d", op.Seq, seq)
		}
	}
	if ack := onB.Operate("mine", 0); ack.Duplicate || ack.Seq != 4 {
		t.Errorf("%+v", ack)
	}
}

func TestLostReplyThenSameOperation(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	eventually(t, "the join to be announced", func() bool {
		m, err := r.backplane.Members(t.Context(), "d")
		return err == nil && len(m) == 1
	})
	r.backplane.LoseReplies(1)
	c.SendOperation("a", 1)
	c.ExpectError("UNAVAILABLE")
	if ack := c.Operate("a", 1); !ack.Duplicate || ack.Seq != 1 {
		t.Errorf("%+v", ack)
	}
	if op := c.ExpectOperation(); op.ID != "a" {
		t.Errorf("%+v", op)
	}
}

func TestLostLogBeginsANewEpoch(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada := w.login("7")
	onA, joined := a.join("d", ada)
	onB, _ := b.join("d", ada)
	onA.Operate("1", 1)
	onA.Operate("2", 2)
	onB.ExpectOperation()
	onB.ExpectOperation()
	w.network.LoseLog("d")
	for _, c := range []*wstest.Client{onA, onB} {
		var lagged struct {
			Channel, Epoch string
			Dropped, Seq   uint64
		}
		c.Expect("lagged").Decode(t, &lagged)
		if lagged.Channel != "operations" || lagged.Epoch == joined.Epoch || lagged.Seq != 0 || lagged.Dropped != 0 {
			t.Errorf("%+v", lagged)
		}
		if again := c.Sync(ws.Position{Epoch: joined.Epoch, Seq: 2}); again.Recovered || again.Epoch != lagged.Epoch {
			t.Errorf("%+v", again)
		}
	}
	ack := onA.Operate("3", 3)
	if op := onB.ExpectOperation(); op.Seq != 1 || ack.Seq != 1 || op.Epoch != ack.Epoch || op.Epoch == joined.Epoch {
		t.Errorf("%+v, %+v", op, ack)
	}
}

func TestLostOperationsBeginANewEpoch(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(nil), w.replica(nil)
	ada := w.login("7")
	onA, joined := a.join("d", ada)
	onB, _ := b.join("d", ada)
	for i := range 5 {
		onA.Operate(fmt.Sprint(i), i)
	}
	for range 5 {
		onB.ExpectOperation()
	}
	w.network.LoseOperations("d", 2)
	ack := onA.Operate("next", 1)
	if ack.Epoch == joined.Epoch {
		t.Errorf("%+v in the old epoch", ack)
	}
	onB.Expect("lagged")
	if again := onB.Sync(ws.Position{Epoch: joined.Epoch, Seq: 5}); again.Epoch != ack.Epoch || again.To != ack.Seq {
		t.Errorf("%+v after %+v", again, ack)
	}
}

func TestUnavailableIsSaid(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	r.hub.SetAvailable(false)
	if f := c.Expect("status"); !strings.Contains(string(f.Raw), `"down"`) {
		t.Errorf("%s", f.Raw)
	}
	c.SendOperation("a", 1)
	c.ExpectError("UNAVAILABLE")
	r.hub.SetAvailable(true)
	if f := c.Expect("status"); !strings.Contains(string(f.Raw), `"up"`) {
		t.Errorf("%s", f.Raw)
	}
	if ack := c.Operate("a", 1); ack.Seq != 1 {
		t.Errorf("%+v", ack)
	}
}

func TestPublishFromABackend(t *testing.T) {
	w := newWorld(t)
	r := w.replica(nil)
	c, _ := r.join("d", w.login("7"))
	url := r.server.URL + "/admin/v1/documents/d"
	var ack struct {
		Epoch     string
		Seq       uint64
		Duplicate bool
	}
	for i := range 2 {
		res, body := request(t, "POST", url+"/operations", `{"id":"x","payload":{"a":1}}`, nil)
		if err := json.Unmarshal([]byte(body), &ack); err != nil || res.StatusCode != 200 || ack.Seq != 1 || ack.Duplicate != (i == 1) {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	if op := c.ExpectOperation(); op.ID != "x" || op.ConnectionID != "" {
		t.Errorf("%+v", op)
	}
	eventually(t, "the member to be shown", func() bool {
		_, body := request(t, "GET", url, "", nil)
		var d struct {
			Epoch   string
			Seq     uint64
			Members []wstest.Present
		}
		return json.Unmarshal([]byte(body), &d) == nil && d.Seq == 1 && d.Epoch == ack.Epoch && len(d.Members) == 1 && d.Members[0].UserID == "7"
	})
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", url + "/operations", `{"payload":1}`, 400},
		{"POST", url + "/operations", `{"id":"x"}`, 400},
		{"POST", url + "/operations", `garbage`, 400},
		{"POST", url + "/operations", `{"id":"x","payload":"` + strings.Repeat("x", 70<<10) + `"}`, 413},
		{"GET", url + "/operations", "", 405},
		{"POST", url, "", 405},
		{"GET", url + "/nonsense", "", 404},
		{"GET", url + "%20x", "", 404},
	} {
		if res, body := request(t, test.method, test.path, test.body, nil); res.StatusCode != test.status || !strings.Contains(body, `"status"`) {
			t.Errorf("%s %s: %d %s", test.method, test.path, res.StatusCode, body)
		}
	}
	r.backplane.SetUnavailable(true)
	if res, _ := request(t, "GET", url, "", nil); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("without Redis: %d", res.StatusCode)
	}
	r.backplane.SetUnavailable(false)
}
