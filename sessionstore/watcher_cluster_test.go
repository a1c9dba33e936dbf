package sessionstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// told is a Listener that passes on how its session ended.
type told struct{ ended chan sessionstore.Reason }

func (told) SessionChanged(*sessionstore.Snapshot) {}
func (told) SessionRotated()                       {}
func (told) SessionExpiring(time.Duration)         {}
func (l told) SessionEnded(r sessionstore.Reason)  { l.ended <- r }
func (l told) SessionUnverified()                  { l.ended <- "unverified" }

// In a Cluster the sessions are in many slots and the news on any node:
// logouts reach the bindings by news, silent deletions by verification.
func TestWatcherInCluster(t *testing.T) {
	rdb := cluster(t)
	f, err := sessionstore.New(rdb, sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := sessionstore.NewWatcher(f, sessionstore.WatchConfig{VerifyEvery: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	until(t, "the watcher is healthy", func() bool { return w.Healthy() == nil })

	for i := range 30 {
		s := f.New()
		if err := s.Set("chat.name", strings.Repeat("x", i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		l := told{make(chan sessionstore.Reason, 1)}
		if _, _, err := w.Bind(t.Context(), s.ID(), l); err != nil {
			t.Fatal(err)
		}
		want := sessionstore.ReasonLogout
		if i%2 == 0 {
			err = f.End(t.Context(), s.ID(), want)
		} else {
			want = sessionstore.ReasonGone
			err = rdb.Del(t.Context(), "session:"+s.ID()).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-l.ended:
			if got != want {
				t.Errorf("ended %s, want %s", got, want)
			}
		case <-time.After(15 * time.Second):
			t.Fatalf("a socket stays open after %s", want)
		}
	}
}
