package sessionstore_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// trail is a log whose lines can be looked up.
type trail struct {
	mu    sync.Mutex
	text  strings.Builder
	lines []map[string]any
}

func (tr *trail) Write(line []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.text.Write(line)
	fields := map[string]any{}
	if err := json.Unmarshal(line, &fields); err != nil {
		return 0, err
	}
	tr.lines = append(tr.lines, fields)
	return len(line), nil
}

func (tr *trail) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(tr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// count returns how many lines say this, with these fields.
func (tr *trail) count(message string, fields ...any) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := 0
	for _, line := range tr.lines {
		fits := line["msg"] == message
		for i := 0; i < len(fields); i += 2 {
			fits = fits && line[fields[i].(string)] == fields[i+1]
		}
		if fits {
			n++
		}
	}
	return n
}

func (tr *trail) want(t *testing.T, n int, message string, fields ...any) {
	t.Helper()
	if got := tr.count(message, fields...); got != n {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		t.Fatalf("%d lines %q %v, want %d:\n%s", got, message, fields, n, tr.text.String())
	}
}

func TestAuditTrail(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := sessionstore.WithMeta(t.Context(), sessionstore.Meta{Address: "192.0.2.1"})
		var tr trail
		f := factory(t, rdb, sessionstore.Config{Logger: tr.logger(), MaxPerUser: 2, AbsoluteTimeout: time.Hour})
		s, err := f.Login(ctx, created(t, f), ann)
		must(t, err)
		tr.want(t, 1, "session created", "session", s.Handle())
		tr.want(t, 1, "session rotated", "session", s.Handle(), "user", "7")
		tr.want(t, 1, "login", "session", s.Handle(), "user", "7", "client", "192.0.2.1")
		must(t, s.Rotate(ctx, nil))
		tr.want(t, 2, "session rotated", "session", s.Handle())

		// Beyond the limit.
		must(t, errOf(f.Login(ctx, nil, ann)))
		last, err := f.Login(ctx, nil, ann)
		must(t, err)
		tr.want(t, 1, "session ended", "session", s.Handle(), "user", "7", "reason", "revoked")
		must(t, f.End(ctx, last.ID(), sessionstore.ReasonLogout))
		must(t, f.End(ctx, last.ID(), sessionstore.ReasonLogout))
		tr.want(t, 1, "session ended", "session", last.Handle(), "reason", "logout")

		// Ends that nobody ordered: time, and somebody with a hand in Redis.
		var lost []*sessionstore.Session
		for range 2 {
			s, err := f.Login(ctx, nil, bob)
			must(t, err)
			lost = append(lost, s)
		}
		for _, s := range lost {
			must(t, rdb.Del(ctx, "session:"+s.ID()).Err())
		}
		seen := time.Now().Add(-time.Hour).UnixMilli()
		must(t, rdb.HSet(ctx, "tandem:handle:{"+lost[0].Handle()+"}", "seen", seen).Err())
		for range 2 {
			infos, err := f.List(ctx, "8")
			wantHandles(t, infos, err)
		}
		tr.want(t, 1, "session ended", "session", lost[0].Handle(), "user", "8", "reason", "expired")
		tr.want(t, 1, "session ended", "session", lost[1].Handle(), "user", "8", "reason", "gone")

		old := newStock(t, rdb, plainJSON{}).made("tandem.sid", s.Handle(), "tandem.created", time.Now().Add(-2*time.Hour).Format(time.RFC3339))
		_, err = f.Load(ctx, old)
		wantEnded(t, err, sessionstore.ReasonExpired)
		tr.want(t, 1, "session ended", "session", s.Handle(), "reason", "expired")
	})
}

// A scanner does not fill the disk.
func TestUnknownIDsAreReportedSparingly(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := sessionstore.WithMeta(t.Context(), sessionstore.Meta{Address: "192.0.2.1"})
		var tr trail
		f := factory(t, rdb, sessionstore.Config{Logger: tr.logger()})
		for i := range 200 {
			id := "nonsense"
			if i%2 == 0 {
				id = sessionstore.NewID()
			}
			_, err := f.Load(ctx, id)
			wantErr(t, err, sessionstore.ErrNotFound)
		}
		tr.want(t, 10, "unknown session ID presented", "client", "192.0.2.1")
		tr.want(t, 5, "unknown session ID presented", "well_formed", false)
	})
}

// watching is a running watcher.
func watching(t *testing.T, f *sessionstore.Factory) *sessionstore.Watcher {
	t.Helper()
	w, err := sessionstore.NewWatcher(f, sessionstore.WatchConfig{VerifyEvery: 50 * time.Millisecond})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return w
}

// A session that has sockets is missed when its time is over, once.
func TestExpiryUnderSocketsIsReported(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		var tr trail
		f := factory(t, srv.Client(t), sessionstore.Config{Logger: tr.logger(), IdleTimeout: 300 * time.Millisecond})
		s, err := f.Login(t.Context(), nil, ann)
		must(t, err)
		for range 2 { // two replicas
			w := watching(t, f)
			for range 3 {
				l := told{make(chan sessionstore.Reason, 1)}
				must(t, errOf2(w.Bind(t.Context(), s.ID(), l)))
				defer func() {
					if got := <-l.ended; got != sessionstore.ReasonExpired {
						t.Errorf("ended: %s", got)
					}
				}()
			}
		}
		until(t, "a line", func() bool { return tr.count("session ended") > 0 })
		tr.want(t, 1, "session ended", "session", s.Handle(), "user", "7", "reason", "expired")
	})
}

func errOf2[A, B any](_ A, _ B, err error) error { return err }
