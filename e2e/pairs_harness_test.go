package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// pairProofSizes says how much each proof does.
type pairProofSizes struct {
	turns      int  // of four connections, over which a replica dies twice
	races      int  // for one side
	waiting    int  // sides on one replica
	relayMiB   int  // through two replicas
	refusedFor int  // seconds that a live replica's side is asked for
	plain      bool // figures are told: without the race detector
}

const (
	pairProtocol = "tandem.pair.v1"
	pairRoutes   = `
      - {path: /left/, use: pairs}
      - {path: /right/, use: pairs}
` + defaultRoutes
	openToAll = "webapp: {registration: open}\n"
)

// pairSite is two replicas that serve pairs over one Redis.
type pairSite struct {
	t      *testing.T
	redis  *redistest.Server
	client *redis.Client
	set    settings
	a, b   *replica
}

// startPairSite runs two replicas; more is YAML for both.
func startPairSite(t *testing.T, more string) *pairSite {
	t.Helper()
	s := &pairSite{t: t, redis: redistest.Start(t)}
	s.client = s.redis.Client(t)
	s.set = settings{redis: s.redis.URL(), routes: pairRoutes, more: openToAll + more, plain: pairSizes.plain}
	s.a, s.b = s.start(), s.start()
	return s
}

// start runs one more replica.
func (s *pairSite) start() *replica {
	s.t.Helper()
	return startReplica(s.t, s.set)
}

// visitor registers and logs in somebody new.
func (s *pairSite) visitor(name string) *person {
	s.t.Helper()
	p := newPerson(s.t)
	p.register(s.a.url, name)
	return p
}

// field is one of the pair's hash, "" when it is not there.
func (s *pairSite) field(pair, name string) string {
	s.t.Helper()
	v, err := s.client.HMGet(s.t.Context(), pairKey(pair), name).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	text, _ := v[0].(string)
	return text
}

func pairKey(pair string) string { return "tandem:pair:{pair:" + pair + "}" }

// trySide opens a side of a pair with nothing that reads from it. The response says why not.
func (p *person) trySide(r *replica, path string, protocols ...string) (*websocket.Conn, *http.Response, error) {
	header := http.Header{}
	for _, c := range p.cookies(r.url) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	d := websocket.Dialer{HandshakeTimeout: 30 * time.Second, Subprotocols: protocols, ReadBufferSize: 512, WriteBufferSize: 512}
	return d.Dial("ws"+strings.TrimPrefix(r.url, "http")+path, header)
}

// jsonSide opens a side for the JSON protocol.
func (p *person) jsonSide(r *replica, path string) *socket {
	p.t.Helper()
	s, resp := p.dial(r.url, path, http.Header{"Sec-Websocket-Protocol": {pairProtocol}})
	if s == nil {
		p.t.Fatalf("%s: %s", path, resp.Status)
	}
	return s
}

// refused expects the upgrade to be refused with that status.
func (p *person) refused(r *replica, path string, status int) {
	p.t.Helper()
	if s, resp := p.dial(r.url, path, nil); s != nil || resp.StatusCode != status {
		p.t.Fatalf("%s: %s, want %d", path, resp.Status, status)
	}
}

// plain reads the next frame of a pair's plain mode.
func (s *socket) plain() string {
	s.t.Helper()
	select {
	case f, ok := <-s.frames:
		if !ok {
			c := <-s.closed
			s.t.Fatalf("closed with %d %q", c.Code, c.Text)
		}
		return f.raw
	case <-time.After(30 * time.Second):
		s.t.Fatal("no frame within 30 s")
	}
	return ""
}

// echo is an answer in plain mode.
type echo struct {
	unique  string
	index   int
	message string
}

func readEcho(raw string) (echo, error) {
	parts := strings.SplitN(raw, " | ", 3)
	if len(parts) != 3 {
		return echo{}, fmt.Errorf("%q is no echo", raw)
	}
	index, err := strconv.Atoi(parts[1])
	return echo{parts[0], index, parts[2]}, err
}
