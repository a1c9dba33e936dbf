package ws_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that comes soon.
const patience = 15 * time.Second

// world is what replicas share: sessions in Redis and a backplane in memory.
type world struct {
	t       testing.TB
	factory *sessionstore.Factory
	watcher *sessionstore.Watcher
	network *wstest.Network
	names   int

	// forget deletes a session behind everybody's back.
	forget func(id string)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	rdb := redistest.Mini(t).Client(t)
	factory, err := sessionstore.New(rdb, sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := sessionstore.NewWatcher(factory, sessionstore.WatchConfig{
		VerifyEvery: 100 * time.Millisecond, Readable: patterns(t, "user.name", "chat.*"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = watcher.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "the session news to be heard", func() bool { return watcher.Healthy() == nil })
	return &world{
		t: t, factory: factory, watcher: watcher, network: wstest.NewNetwork(0),
		forget: func(id string) {
			if err := rdb.Del(t.Context(), "session:"+id).Err(); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// login makes a session with a user and returns its cookie.
func (w *world) login(user string) *cookie {
	w.t.Helper()
	s := w.factory.New()
	for name, value := range map[string]string{"user.id": user, "user.name": "name of " + user, "chat.name": user, "secret": "x"} {
		if err := s.Set(name, value); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := s.Save(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return &cookie{id: s.ID(), handle: s.Handle()}
}

type cookie struct{ id, handle string }

func (c *cookie) header() http.Header {
	if c == nil {
		return nil
	}
	return http.Header{"Cookie": {"tandem=" + c.id}}
}

// replica is one hub behind an HTTP server.
type replica struct {
	t         testing.TB
	hub       *ws.Hub
	server    *httptest.Server
	backplane *wstest.Replica
}

// replica starts one more replica. change may change its configuration.
func (w *world) replica(change func(*ws.Config)) *replica {
	w.t.Helper()
	w.names++
	name := "replica" + string(rune('0'+w.names))
	cfg := w.config(name)
	if change != nil {
		change(&cfg)
	}
	hub, err := ws.NewHub(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/ws/documents/", hub.Documents())
	mux.Handle("/admin/v1/documents/", hub.Admin())
	r := &replica{t: w.t, hub: hub, server: httptest.NewServer(mux), backplane: w.network.Replica(name)}
	w.t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			w.t.Error(err)
		}
		r.server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

func (w *world) config(name string) ws.Config {
	return ws.Config{
		Backplane: w.network.Replica(name),
		Bind: func(ctx context.Context, id string, l sessionstore.Listener) (ws.Binding, *sessionstore.Snapshot, error) {
			b, s, err := w.watcher.Bind(ctx, id, l)
			if err != nil {
				return nil, nil, err
			}
			return b, s, nil
		},
		SessionID: func(r *http.Request) (string, bool) {
			c, err := r.Cookie("tandem")
			if err != nil || !sessionstore.ValidID(c.Value) {
				return "", false
			}
			return c.Value, true
		},
		RedeemTicket: w.factory.RedeemTicket,
		Peek:         w.factory.Peek,
		Places:       w.network.Replica(name),
		Readable:     patterns(w.t, "user.name", "chat.*"),
		Writable:     patterns(w.t, "chat.*"),
		Replica:      name,
		Documents:    ws.DocumentsConfig{PresenceGrace: 1}, // none: who is cut has left
	}
}

func patterns(t testing.TB, p ...string) sessionstore.Patterns {
	t.Helper()
	compiled, err := sessionstore.ParsePatterns(p)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// dial opens a socket for a document.
func (r *replica) dial(document string, c *cookie) *wstest.Client {
	r.t.Helper()
	return wstest.Dial(r.t, r.server.URL+"/ws/documents/"+document, wstest.DialOptions{Header: c.header()})
}

// open opens a socket and authenticates.
func (r *replica) open(document string, c *cookie) *wstest.Client {
	r.t.Helper()
	client := r.dial(document, c)
	client.Authenticate()
	return client
}

// join opens a socket, authenticates and joins.
func (r *replica) join(document string, c *cookie) (*wstest.Client, wstest.Joined) {
	r.t.Helper()
	client := r.open(document, c)
	return client, client.Join(nil)
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond) // polling, bounded by the deadline
	}
}

func expectClose(t *testing.T, c *wstest.Client, code ws.CloseCode, reason string) {
	t.Helper()
	if got := c.ExpectClose(); got.Code != int(code) || got.Reason != reason {
		t.Fatalf("closed with %d %q, not %d %q", got.Code, got.Reason, code, reason)
	}
}

// request sends a plain request and returns the response with its body.
func request(t *testing.T, method, url, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := res.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return res, b.String()
}
