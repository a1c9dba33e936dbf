package wsredis

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

func FuzzParseAnnouncement(f *testing.F) {
	frame := ws.OperationHead(ws.Position{Epoch: "e", Seq: 7})
	f.Add(append(frame, ws.Operation{ID: "1", Payload: []byte(`{}`)}.FrameTail()...))
	f.Add([]byte(`{"type":"presence","replica":"r","joined":[{"connection_id":"c","state":[1]}],"left":[{"connection_id":"d","reason":"leave"}]}`))
	f.Add([]byte(`{"type":"reset","epoch":"e"}`))
	f.Add([]byte(`{"type":"reset"}`))
	f.Add([]byte(`{"type":"operation","epoch":"e","seq":-1,`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		a, err := parseAnnouncement(payload)
		switch {
		case err != nil && a.kind != "":
			t.Errorf("%q with error %v", a.kind, err)
		case err == nil && a.kind != kindOperation && a.kind != kindPresence && a.kind != kindReset:
			t.Errorf("kind %q", a.kind)
		case a.kind == kindOperation && string(a.frame) != string(payload):
			t.Errorf("frame %q", a.frame)
		case a.kind == kindReset && a.at.Epoch == "":
			t.Error("a reset to no epoch")
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add("epoch", int64(3), true)
	f.Add("", int64(-3), false)
	f.Fuzz(func(t *testing.T, s string, n int64, full bool) {
		values := []any{s, n}
		if !full {
			values = []any{n, s}
		}
		r := reader{values: values}
		at := r.position()
		if want := full && n >= 0; want == r.failed {
			t.Errorf("%v read as %v, failed %v", values, at, r.failed)
		}
		_ = r.list()
		if !r.failed {
			t.Error("read past the end")
		}
	})
}

type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

func TestWrap(t *testing.T) {
	var _ redis.Error = answer("")
	for _, c := range []struct {
		err         error
		unavailable bool
	}{
		{errors.New("connection reset"), true},
		{answer("READONLY You can't write against a read only replica."), true},
		{answer("OOM command not allowed"), true},
		{answer("WRONGTYPE Operation against a key"), false},
		{answer("ERR bug"), false},
	} {
		got := wrap("x", c.err)
		if errors.Is(got, ws.ErrUnavailable) != c.unavailable || !errors.Is(got, c.err) {
			t.Errorf("%v became %v", c.err, got)
		}
	}
	if wrap("x", nil) != nil {
		t.Error("nil became an error")
	}
}

func TestDocumentOf(t *testing.T) {
	for _, id := range []string{"a", "A:b~._-9"} {
		if got, ok := documentOf(newsChannel(id)); !ok || got != id {
			t.Errorf("%q, %v", got, ok)
		}
	}
	for _, channel := range []string{"", "tandem:news:{doc:x", probeChannel("r")} {
		if _, ok := documentOf(channel); ok {
			t.Errorf("%q is a document's", channel)
		}
	}
}

func TestTopicCheck(t *testing.T) {
	topic := newTopic("d", nil)
	if topic.learnLocked(ws.Position{Epoch: "e", Seq: 5}) {
		t.Error("the first epoch is not a new one")
	}
	for i, step := range []struct {
		delivered, head uint64
		missed          bool
	}{
		{0, 5, false}, // before the subscription
		{0, 6, false}, // 6 may be on its way
		{6, 7, false}, // it was
		{6, 7, true},  // 7 had its time
		{6, 7, false}, // and is told of once
	} {
		topic.delivered = max(topic.delivered, step.delivered)
		if got := topic.checkLocked(step.head); got != step.missed {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if !topic.learnLocked(ws.Position{Epoch: "f"}) || topic.based {
		t.Error("a new epoch begins from nothing")
	}
}
