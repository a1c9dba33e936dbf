package ws_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// judge is an Authorizer that says what it is told to.
type judge struct {
	mu    sync.Mutex
	no    map[ws.Action]error
	holds time.Duration // 0: as long as the session does not change
	asked []ws.Access
}

func (j *judge) Authorize(_ context.Context, a ws.Access) (time.Time, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked = append(j.asked, a)
	if j.holds == 0 {
		return time.Time{}, j.no[a.Action]
	}
	return time.Now().Add(j.holds), j.no[a.Action]
}

func (j *judge) says(action ws.Action, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.no = map[ws.Action]error{action: err}
}

func (j *judge) count(action ws.Action) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range j.asked {
		if a.Action == action {
			n++
		}
	}
	return n
}

func judged(j *judge) func(*ws.Config) { return func(c *ws.Config) { c.Authorizer = j } }

func expectErrorTo(t *testing.T, c *wstest.Client, re, code string) wstest.Error {
	t.Helper()
	var e wstest.Error
	c.ExpectReply(re).Decode(t, &e)
	if e.Code != code {
		t.Fatalf("error %+v, not %s", e, code)
	}
	return e
}

func TestWhoMayNotJoin(t *testing.T) {
	w := newWorld(t)
	j := &judge{}
	r := w.replica(judged(j))
	ada := w.login("7")
	c := r.open("d", ada)
	j.says(ws.ActionRead, ws.ErrForbidden)
	c.SendText(`{"type":"join_document","id":"1"}`)
	expectErrorTo(t, c, "1", "FORBIDDEN")
	j.says(ws.ActionRead, errors.New("no answer"))
	c.SendText(`{"type":"join_document","id":"2"}`)
	if e := expectErrorTo(t, c, "2", "UNAVAILABLE"); e.RetryAfterMS <= 0 {
		t.Errorf("%+v", e)
	}
	c.SendText(`{"type":"operation","id":"3","payload":1}`)
	expectErrorTo(t, c, "3", "NOT_JOINED")
	j.says("", nil)
	c.Join(nil)
	if a := j.asked[0]; a.Document != "d" || a.Session.Handle() != ada.handle || a.Session.UserID() != "7" {
		t.Errorf("asked %+v", a)
	}
}

func TestWhoMayNotWrite(t *testing.T) {
	w := newWorld(t)
	j := &judge{}
	r := w.replica(judged(j))
	c, _ := r.join("d", w.login("7"))
	c.SendText(`{"type":"operation","id":"1","payload":1}`)
	c.ExpectReply("1")
	c.SendText(`{"type":"operation","id":"2","payload":1}`)
	c.ExpectReply("2")
	if n := j.count(ws.ActionWrite); n != 1 {
		t.Errorf("asked %d times for two operations", n)
	}

	j.says(ws.ActionWrite, ws.ErrForbidden)
	reader, _ := r.join("d", w.login("8"))
	reader.SendText(`{"type":"operation","id":"3","payload":1}`)
	expectErrorTo(t, reader, "3", "FORBIDDEN")
	reader.SendText(`{"type":"snapshot","id":"4","seq":1,"payload":1}`)
	expectErrorTo(t, reader, "4", "FORBIDDEN")
	reader.SendText(`{"type":"presence","id":"5","state":1}`)
	c.ExpectPresence("a reader's cursor", func(p wstest.Presence) bool { return len(p.Updated) == 1 })
	c.SendText(`{"type":"operation","id":"6","payload":1}`) // it was allowed before
	c.ExpectReply("6")
	var op wstest.Operation
	reader.ExpectBroadcast("operation").Decode(t, &op)
	if op.ID != "6" {
		t.Errorf("%+v", op)
	}
	res, _ := request(t, "POST", r.server.URL+"/admin/v1/documents/d/operations", `{"id":"b","payload":1}`, nil)
	if res.StatusCode != 200 {
		t.Errorf("a backend was refused: %s", res.Status)
	}
}

// expectTurnedOut checks that a member is told why it is no longer one, and
// hears nothing more.
func expectTurnedOut(t *testing.T, c *wstest.Client, code string) {
	t.Helper()
	e := c.ExpectError(code)
	if e.Re != "" || (e.RetryAfterMS > 0) != (code == "UNAVAILABLE") {
		t.Errorf("%+v", e)
	}
	if f := c.Expect("left_document"); f.Re != "" {
		t.Errorf("%s", f.Raw)
	}
	c.SendText(`{"type":"operation","id":"after","payload":1}`)
	expectErrorTo(t, c, "after", "NOT_JOINED")
}

// The session changed: a permission that came from it may be gone.
func TestMemberIsTurnedOutWhenItsSessionChanges(t *testing.T) {
	w := newWorld(t)
	j := &judge{}
	r := w.replica(func(c *ws.Config) { c.Authorizer = attributed{j} })
	witness, _ := r.join("d", w.login("8"))
	ada := w.login("7")
	c, _ := r.join("d", ada)
	elsewhere := r.open("e", ada) // has joined nothing
	for _, name := range []string{"still fine", "no"} {
		if _, err := w.factory.Update(t.Context(), ada.id, func(s *sessionstore.Session) error { return s.Set("chat.name", name) }); err != nil {
			t.Fatal(err)
		}
		c.Expect("session_changed")
		elsewhere.Expect("session_changed")
	}
	expectTurnedOut(t, c, "FORBIDDEN")
	witness.ExpectPresence("left", left(c.ID, "forbidden"))
	elsewhere.SendText(`{"type":"ping"}`)
	elsewhere.Expect("pong")
	for _, f := range elsewhere.Received() {
		if f.Type == "error" || f.Type == "left_document" {
			t.Errorf("to a socket that is no member: %s", f.Raw)
		}
	}
}

// attributed forbids everything to sessions whose chat.name is "no".
type attributed struct{ *judge }

func (a attributed) Authorize(_ context.Context, access ws.Access) (time.Time, error) {
	if v, _ := access.Session.JSON("chat.name"); string(v) == string(mustJSON("no")) {
		return time.Time{}, ws.ErrForbidden
	}
	return time.Time{}, nil
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// A yes has an end: a member is asked for again then, and only then.
func TestMemberIsTurnedOutWhenItsPermitIsOver(t *testing.T) {
	for code, no := range map[string]error{"FORBIDDEN": ws.ErrForbidden, "UNAVAILABLE": errors.New("no answer")} {
		t.Run(code, func(t *testing.T) {
			w := newWorld(t)
			j := &judge{holds: 50 * time.Millisecond}
			r := w.replica(judged(j))
			c, _ := r.join("d", w.login("7"))
			eventually(t, "it to be asked again", func() bool { return j.count(ws.ActionRead) > 2 })
			j.says(ws.ActionRead, no)
			expectTurnedOut(t, c, code)
			n := j.count(ws.ActionRead)
			j.says("", nil)
			c.Join(nil)
			if again := j.count(ws.ActionRead); again < n+1 {
				t.Errorf("asked %d times, before %d", again, n)
			}
			c.SendText(`{"type":"leave_document"}`)
			c.Expect("left_document")
		})
	}
}
