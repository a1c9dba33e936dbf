package sessionstore

import (
	"fmt"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestHearing(t *testing.T) {
	var h hearing
	for i := range 3 * heardOf {
		before := h.count
		h.note(fmt.Sprint(i))
		if !h.since(before, fmt.Sprint(i)) || h.since(before, "other") || h.since(h.count, fmt.Sprint(i)) {
			t.Fatalf("wrong after note %d", i)
		}
	}
	before := h.count
	h.note("own")
	for range heardOf - 2 {
		h.note("other")
	}
	if !h.since(before, "own") || h.since(before, "third") {
		t.Error("forgets too early")
	}
	h.note("other")
	if !h.since(before, "third") {
		t.Error("knows what it has forgotten")
	}
	before = h.count
	h.gap()
	if !h.since(before, "any") {
		t.Error("a gap is news to everybody")
	}
}

// What is heard while a session is loaded has it loaded again, if it was of
// this session; what was of others has not.
func TestBindReloadsForOwnNews(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		f, err := New(srv.Client(t), Config{})
		check(t, err)
		w, err := NewWatcher(f, WatchConfig{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		for _, c := range []struct {
			name   string
			happen func()
			reload bool
		}{
			{"nothing", func() {}, false},
			{"another session", func() { w.hear(news{What: newsChanged, Handle: NewHandle()}) }, false},
			{"this session", func() { w.hear(news{What: newsChanged, Handle: s.Handle()}) }, true},
			{"a gap", w.rescan, true},
		} {
			before := w.heard.count
			c.happen()
			b, _ := w.bind(s.Snapshot(), before, newEar())
			if b.entry.refreshing != c.reload {
				t.Errorf("%s: loaded again is %v", c.name, b.entry.refreshing)
			}
			b.Close()
		}
	})
}
