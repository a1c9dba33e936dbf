package wsredis

import (
	"log/slog"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// What a check found to be under way is looked for with the next tick: what is
// lost is found within three, sooner than clients are promised.
func TestWhatIsOwedIsDue(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSubscriptions(nil, "", time.Second, slog.New(slog.DiscardHandler), m)
	s.urgent = func() {}
	top := newTopic("d", nil)
	top.survey = false
	s.topics["d"] = top
	at := ws.Position{Epoch: "e", Seq: 5}
	due := func() bool { return len(s.due(time.Hour)) > 0 }

	s.checked(top, at, 7)
	if due() {
		t.Error("nothing is owed")
	}
	s.checked(top, at, 8)
	if !due() {
		t.Error("an announcement of members is owed")
	}
	s.note(top, announcement{kind: kindPresence, number: 8})
	if due() {
		t.Error("it has come")
	}
	at.Seq = 6
	s.checked(top, at, 8)
	if !due() {
		t.Error("an operation is owed")
	}
	s.note(top, announcement{kind: kindOperation, at: at})
	if due() {
		t.Error("it has come")
	}
}
