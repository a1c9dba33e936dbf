package wstest_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryContract(t *testing.T) {
	wstest.Contract(t, func(t *testing.T) wstest.Pair {
		const keep = 300
		n := wstest.NewNetwork(keep)
		a := n.Replica("a")
		return wstest.Pair{A: a, B: n.Replica("b"), Keep: keep, LoseLog: n.LoseLog, KillA: a.Kill}
	})
}

func TestMemoryPlaces(t *testing.T) {
	wstest.PlacesContract(t, func(t *testing.T) wstest.PlacesPair {
		n := wstest.NewNetwork(0)
		a := n.Replica("a")
		return wstest.PlacesPair{A: a, B: n.Replica("b"), KillA: a.Kill}
	})
}

func TestMemoryFaults(t *testing.T) {
	n := wstest.NewNetwork(0)
	a, b := n.Replica("a"), n.Replica("b")
	r := wstest.NewRecorder()
	unsubscribe, err := b.Subscribe(t.Context(), "d", r)
	if err != nil {
		t.Fatal(err)
	}
	defer unsubscribe()
	send := func(id string) ws.Ack {
		t.Helper()
		ack, err := a.Append(t.Context(), "d", ws.Operation{ID: id, UserID: "u"}, ws.Position{})
		if err != nil {
			t.Fatal(err)
		}
		return ack
	}

	b.Drop(1)
	lost := send("dropped")
	b.Duplicate(true)
	twice := send("doubled")
	b.Duplicate(false)
	got := r.Wait(t, "the doubled operation", func(s wstest.Recorded) bool { return len(s.Operations) == 2 })
	if got.Has(lost.Position) || !got.Has(twice.Position) {
		t.Errorf("delivered: %+v", got.Operations)
	}

	a.LoseReplies(1)
	op := ws.Operation{ID: "unsure", UserID: "u"}
	if _, err := a.Append(t.Context(), "d", op, ws.Position{}); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("lost reply: %v", err)
	}
	if ack, err := a.Append(t.Context(), "d", op, ws.Position{}); err != nil || !ack.Duplicate || ack.Seq != 3 {
		t.Errorf("repeated: %+v, %v", ack, err)
	}

	b.SetUnavailable(true)
	if _, err := b.Members(t.Context(), "d"); !errors.Is(err, ws.ErrUnavailable) {
		t.Errorf("cut off: %v", err)
	}
	unheard := send("unheard")
	b.SetUnavailable(false)
	if got := r.Wait(t, "a gap", func(s wstest.Recorded) bool { return s.Gaps == 1 }); got.Has(unheard.Position) {
		t.Error("heard while cut off")
	}

	n.LoseOperations("d", 2)
	ack, err := a.Append(t.Context(), "d", ws.Operation{ID: "next", UserID: "u"}, unheard.Position)
	if err != nil || ack.Epoch == unheard.Epoch || ack.Seq != 3 {
		t.Errorf("after a failover: %+v, %v", ack, err)
	}
}
