package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A page that does not use the session asks Redis for nothing; one that does reads it once, through the web app and
// through the gateway alike, however often it looks.
func TestPagesAskRedisOnceOrNever(t *testing.T) {
	t.Parallel()
	const asks = 50
	server := redistest.Start(t)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "hello.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Tandem-User"))
	}))
	t.Cleanup(up.Close)
	r := startReplica(t, settings{redis: server.URL(), more: "session: {serializer: json}\n", routes: fmt.Sprintf(`
      - {path: /files/, files: {root: %q}}
      - {path: /members/, upstream: {targets: [%q], login: required}}
      - {path: /open/, upstream: {targets: [%q]}}
      - {path: /, use: webapp}
`, root, up.URL, up.URL)})
	ann, nobody, odd := newPerson(t), newPerson(t), newPerson(t)
	ann.register(r.url, "ann")
	odd.fixed = []*http.Cookie{{Name: "tandem", Value: "made-up"}}

	rdb := server.Client(t)
	for _, c := range []struct {
		who    *person
		path   string
		status int
		loads  int // a request
	}{
		{ann, "/files/hello.txt", 200, 0},
		{ann, "/static/tandem.js", 200, 0},
		{nobody, "/", 200, 0},
		{nobody, "/login", 200, 0},
		{nobody, "/api/session", 200, 0},
		{nobody, "/open/page", 200, 0},
		{nobody, "/members/page", 401, 0},
		{odd, "/", 200, 0},
		{odd, "/open/page", 200, 0},
		{ann, "/", 200, 1},
		{ann, "/documents/plan", 200, 1},
		{ann, "/api/session", 200, 1},
		{ann, "/open/page", 200, 1},
		{ann, "/members/page", 200, 1},
	} {
		ask := func() {
			if a := c.who.get(r.url + c.path); a.status != c.status {
				t.Fatalf("%s: %d %s", c.path, a.status, tail(a.body, 200))
			}
		}
		ask() // now is remembered what is read once
		before := commandCalls(t, rdb)
		for range asks {
			ask()
		}
		after := commandCalls(t, rdb)
		for name, n := range after {
			n -= before[name]
			want := 0
			if name == "mget" || name == "pttl" { // together, in one round trip
				want = c.loads * asks
			} else if n < asks {
				continue // the replica's own, in the meantime: nothing that each request did
			}
			if n != want {
				t.Errorf("%s: %d × %s for %d requests, want %d", c.path, n, name, asks, want)
			}
		}
	}
}
