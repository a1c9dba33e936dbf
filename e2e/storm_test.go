package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// stormProofs says how much each proof does.
type stormProofs struct {
	sockets, documents int
	pace               time.Duration // between two operations of a publisher
	spread             time.Duration // of the drain
	admission          int           // upgrades a second
	storm              int           // sockets of the replica that is killed
	stormAdmission     int
}

const socketsPerSession = 50

// guests logs as many in as n sockets need, and returns their cookies by socket.
func guests(t *testing.T, redis *redistest.Server, n int) func(i int) []*http.Cookie {
	t.Helper()
	app := startStockApp(t, redis.URL(), "json")
	var all [][]*http.Cookie
	for i := range (n + socketsPerSession - 1) / socketsPerSession {
		all = append(all, visitor(t, app, fmt.Sprint("guest", i)).cookies(app))
	}
	return func(i int) []*http.Cookie { return all[i/socketsPerSession] }
}

// Both replicas are restarted one after the other under publishers: everybody is back, nobody is told an operation
// twice or misses one that was acknowledged, and since everybody comes back when told to, no more come at a time than
// a replica takes on.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	size := stormSizes
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), more: fmt.Sprintf(
		"session: {serializer: json}\nlimits: {upgrades_per_second: %d}\ndrain: {timeout: %s, spread: %s}\ndocuments: {auth_timeout: 1m}\n",
		size.admission, 3*size.spread, size.spread)}
	f := &fleet{t: t, settings: []settings{s, s}}
	f.start()
	c := gather(f.anywhere, size.sockets, size.documents, guests(t, redis, size.sockets))
	c.pace, c.within = size.pace, size.spread
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	holds := func(within time.Duration, what func() error) {
		t.Helper()
		holdsWhile(t, ended, within, what)
	}
	holds(2*time.Minute, c.allPresent)

	for n := range f.replicas {
		began := time.Now()
		f.drain(n, newPerson(t))
		holds(2*time.Minute, c.allPresent)
		peak, opened := c.peak(began)
		t.Logf("restart %d: %d sockets came back within %s, at most %d in a second, %d are admitted, %d were refused so far",
			n+1, opened, time.Since(began).Round(time.Millisecond), peak, size.admission, c.refusals(http.StatusServiceUnavailable))
		if peak >= size.admission {
			t.Errorf("%d sockets were opened in a second", peak)
		}
	}
	c.quiet.Store(true)
	holds(time.Minute, c.settled)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	operations, err := c.compare()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d sockets in %d documents: %d operations, all of them once at every client", size.sockets, size.documents, operations)
}

// holdsWhile waits for what, and fails at once when the crowd has ended.
func holdsWhile(t *testing.T, ended chan error, within time.Duration, what func() error) {
	t.Helper()
	eventually(t, within, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatal(err)
		default:
		}
		return what()
	})
}

// drain restarts a replica the way a deployment does. It says that it is not ready and takes nobody on any more, while
// those who are there are sent away in their time.
func (f *fleet) drain(n int, who *person) {
	f.t.Helper()
	r := f.replicas[n]
	r.signal(syscall.SIGTERM)
	r.waitStatus("/readyz", http.StatusServiceUnavailable, 10*time.Second)
	if s, resp := who.dial(r.url, "/ws/documents/d", nil); s != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		f.t.Errorf("a replica that drains: %v", resp.Status)
	}
	<-r.done
	if out := r.out.String(); r.err != nil || !strings.Contains(out, `"msg":"drained"`) {
		f.t.Errorf("the drain ended with %v", r.err)
	}
	next := startReplica(f.t, f.settings[n])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas[n] = next
}

// A replica is killed and all of its clients come to the other at once: it takes them on as fast as it may, tells the
// others when to come back, and is well meanwhile.
func TestStorm(t *testing.T) {
	t.Parallel()
	size := stormSizes
	redis := redistest.Start(t)
	s := settings{redis: redis.URL(), more: "session: {serializer: json}\nlimits: {upgrades_per_second: 0}\n"}
	doomed := startReplica(t, s)
	s.more = fmt.Sprintf("session: {serializer: json}\nlimits: {upgrades_per_second: %d}\n", size.stormAdmission)
	other := startReplica(t, s)
	cookies := guests(t, redis, size.storm+1)
	witness := newPerson(t)
	witness.fixed = cookies(size.storm)
	stays := witness.authenticated(other.url, "d")

	f := &fleet{t: t, replicas: []*replica{doomed}}
	c := gather(f.anywhere, size.storm, 1, cookies)
	c.pace = size.pace
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	holdsWhile(t, ended, time.Minute, c.allPresent)

	f.mu.Lock()
	f.replicas[0] = other
	f.mu.Unlock()
	killed := time.Now()
	doomed.kill()
	eventually(t, 20*time.Second, func() error {
		if c.refusals(http.StatusServiceUnavailable) == 0 {
			return fmt.Errorf("nobody was refused")
		}
		return nil
	})
	other.waitStatus("/readyz", http.StatusOK, 10*time.Second)
	stays.send(map[string]any{"type": "ping", "id": "p"})
	stays.want("pong")
	holdsWhile(t, ended, 2*time.Minute, c.allPresent)
	took := time.Since(killed)
	peak, opened := c.peak(killed)
	t.Logf("%d sockets were back after %s, at most %d in a second, %d refusals; %d a second are admitted",
		opened, took.Round(time.Millisecond), peak, c.refusals(http.StatusServiceUnavailable), size.stormAdmission)
	if least := time.Duration(size.storm-2*size.stormAdmission) * time.Second / time.Duration(size.stormAdmission); took < least {
		t.Errorf("they were let in faster than in %s", least)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
