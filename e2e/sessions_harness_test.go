package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// proofSizes says how much each proof does.
type proofSizes struct {
	changes         int // of each writer's attributes
	logouts         int // each racing ten writes
	latencies       int // logouts that are timed
	faultRounds     int // outages of each kind
	faultSockets    int // sessions that are ended in each
	rotatingSockets int // of one session
	rotations       int
	rotatingWrites  int // of each socket
	idleSockets     int // sessions with a socket each
	idleSeconds     int
}

// site is what a user meets: two replicas and an unmodified application, all on one Redis.
type site struct {
	redis *redistest.Server
	a, b  *replica
	app   string // URL of the application
}

// startSite runs two replicas with sessions that the application can read. more is YAML for both.
func startSite(t *testing.T, more string) *site {
	t.Helper()
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), more: "session: {serializer: json, verify_every: 1s}\n" + more}
	return &site{
		redis: redis, app: startStockApp(t, redis.URL(), "json"),
		a: startReplica(t, s), b: startReplica(t, s),
	}
}

// visitor logs a new user in, at the application: that costs no password hash. Cookies know no ports, so that the
// session is that of the replicas too.
func visitor(t *testing.T, app, id string) *person {
	t.Helper()
	p := newPerson(t)
	if a := p.post(app+"/app/login", url.Values{"id": {id}, "name": {"Visitor " + id}}); a.status != http.StatusOK {
		t.Fatalf("login at the application: %d %s", a.status, a.body)
	}
	return p
}

// many is how clients that send a lot connect.
var many = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	return t
}()

// frozen is the person with the cookies of this moment for good, as requests have them that are under way already.
func (p *person) frozen(base string) *person {
	return &person{t: p.t, fixed: p.cookies(base), http: &http.Client{
		Transport: many, Timeout: p.http.Timeout, CheckRedirect: p.http.CheckRedirect,
	}}
}

// sessionID of the person's cookie: what the tests look for in Redis.
func (p *person) sessionID(base string) string {
	p.t.Helper()
	for _, c := range p.cookies(base) {
		if sessionID.MatchString(c.Value) {
			return c.Value
		}
	}
	p.t.Fatal("no session cookie")
	return ""
}

// tryJSON sends v (nil: no body) and decodes a 200 into out (nil: ignored).
func (p *person) tryJSON(method, rawURL string, v, out any) (answer, error) {
	var body bytes.Buffer
	if v != nil {
		if err := json.NewEncoder(&body).Encode(v); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequest(method, rawURL, &body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	a, err := p.try(req)
	if err != nil || a.status != http.StatusOK || out == nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(a.body), out)
}

// trySession is GET /api/session.
func (p *person) trySession(base string) (session, answer, error) {
	var s session
	a, err := p.tryJSON(http.MethodGet, base+"/api/session", nil, &s)
	return s, a, err
}

// errClosed: the server closed the socket; the code is in socket.closed.
var errClosed = errors.New("the socket was closed")

// try sends a request over the socket and returns its reply; frames that come before it are passed to other, nil for
// dropped. One goroutine at a time, not beside want.
func (s *socket) try(id string, request map[string]any, other func(frame)) (frame, error) {
	request["id"] = id
	if err := s.conn.WriteJSON(request); err != nil {
		return frame{}, errors.Join(errClosed, err)
	}
	timeout := time.After(30 * time.Second)
	for {
		select {
		case f, ok := <-s.frames:
			switch {
			case !ok:
				return frame{}, errClosed
			case f.fields["re"] == id:
				return f, nil
			case other != nil:
				other(f)
			}
		case <-timeout:
			return frame{}, fmt.Errorf("no reply to %v within 30 s", request)
		}
	}
}

// together runs fns at once and fails the test with their errors.
func together(t *testing.T, fns ...func() error) {
	t.Helper()
	var g errgroup.Group
	for _, fn := range fns {
		g.Go(fn)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// seeded is a source of chance whose seed is in the test's log.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// percentiles of durations, for the log.
func percentiles(ds []time.Duration) string {
	slices.Sort(ds)
	at := func(p int) time.Duration { return ds[(len(ds)-1)*p/100].Round(10 * time.Microsecond) }
	return "p50 " + at(50).String() + ", p99 " + at(99).String() + ", max " + at(100).String() + " of " + strconv.Itoa(len(ds))
}
