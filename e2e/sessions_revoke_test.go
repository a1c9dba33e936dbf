package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// How long after a logout on one replica is a socket on another closed? Stated beside what Redis itself needs to pass
// one message on, in the same run.
func TestRevocationLatency(t *testing.T) {
	s := startSite(t, "")
	raw := newPublished(t, s.redis)
	var bare, total, after []time.Duration
	for i := range sizes.latencies {
		user := visitor(t, s.app, fmt.Sprint("u", i))
		sock := user.authenticated(s.b.url, "latency")
		bare = append(bare, raw.latency())
		began := time.Now()
		if a := user.post(s.a.url+"/logout", nil); a.status != http.StatusSeeOther {
			t.Fatalf("logout: %d", a.status)
		}
		answered := time.Now()
		sock.wantClose(4401, "logout")
		total = append(total, sock.ended.Sub(began))
		after = append(after, max(0, sock.ended.Sub(answered)))
	}
	t.Logf("PUBLISH to delivery, bare:                %s", percentiles(bare))
	t.Logf("logout sent on A to socket closed on B:   %s", percentiles(total))
	t.Logf("logout answered on A to socket closed on B: %s", percentiles(after))
}

// published measures how long a bare message takes through Redis.
type published struct {
	t        *testing.T
	rdb      *redis.Client
	messages <-chan *redis.Message
}

func newPublished(t *testing.T, server *redistest.Server) *published {
	t.Helper()
	rdb := server.Client(t)
	sub := rdb.Subscribe(t.Context(), "e2e:bare")
	t.Cleanup(func() { _ = sub.Close() })
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &published{t: t, rdb: rdb, messages: sub.Channel()}
}

func (p *published) latency() time.Duration {
	p.t.Helper()
	began := time.Now()
	if err := p.rdb.Publish(p.t.Context(), "e2e:bare", "x").Err(); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.messages:
		return time.Since(began)
	case <-time.After(10 * time.Second):
		p.t.Fatal("a bare message was not delivered")
		return 0
	}
}

// outage is one way in which the news of a logout cannot reach a replica.
type outage struct {
	begin func(t *testing.T, s *cutSite)
	end   func(s *cutSite)
	// lasts: the replica may notice before it ends. Else it is over as soon as the logouts are done.
	lasts bool
}

// cutSite is a site whose second replica has a link to Redis that can fail.
type cutSite struct {
	redis *redistest.Server
	link  *redistest.Link
	admin *redis.Client
	a, b  *replica
	app   string
}

var outages = map[string]outage{
	"pubsub killed": {
		begin: func(t *testing.T, s *cutSite) {
			if err := s.admin.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
				t.Fatal(err)
			}
		},
		end: func(*cutSite) {},
	},
	"cut, shortly":         {begin: func(_ *testing.T, s *cutSite) { s.link.Cut() }, end: func(s *cutSite) { s.link.Heal() }},
	"cut":                  {begin: func(_ *testing.T, s *cutSite) { s.link.Cut() }, end: func(s *cutSite) { s.link.Heal() }, lasts: true},
	"black-holed, shortly": {begin: func(_ *testing.T, s *cutSite) { s.link.Blackhole(true) }, end: func(s *cutSite) { s.link.Blackhole(false) }},
	"black-holed":          {begin: func(_ *testing.T, s *cutSite) { s.link.Blackhole(true) }, end: func(s *cutSite) { s.link.Blackhole(false) }, lasts: true},
}

// Logouts whose news are lost: the sockets on the other replica are closed within verify_every and a second of the
// link's return, every time.
func TestRevocationIsBounded(t *testing.T) {
	t.Parallel()
	const verifyEvery = 1 * time.Second
	for name, o := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			link := redistest.NewLink(t, redis.Addr())
			more := fmt.Sprintf("session: {serializer: json, verify_every: %s}\n", verifyEvery)
			s := &cutSite{
				redis: redis, link: link, admin: redis.Client(t), app: startStockApp(t, redis.URL(), "json"),
				a: startReplica(t, settings{redis: redis.URL(), more: more}),
				b: startReplica(t, settings{redis: redis.URLAt(link.Addr()), more: more}),
			}
			var took []time.Duration
			for round := range sizes.faultRounds {
				took = append(took, o.round(t, s, round)...)
			}
			t.Logf("closed after the link's return: %s", percentiles(took))
			for _, d := range took {
				if d > verifyEvery+time.Second {
					t.Errorf("a socket stayed open for %v after the link's return", d)
				}
			}
		})
	}
}

// round ends some sessions during one outage and returns how long after it their sockets were closed.
func (o outage) round(t *testing.T, s *cutSite, n int) []time.Duration {
	t.Helper()
	s.b.waitStatus("/readyz", http.StatusOK, 30*time.Second)
	var users []*person
	var socks []*socket
	for i := range sizes.faultSockets {
		user := visitor(t, s.app, fmt.Sprintf("u%d-%d", n, i))
		// What the outage before did to the subscriptions may be found only now: until it is mended sockets are refused.
		var sock *socket
		eventually(t, 30*time.Second, func() error {
			var resp *http.Response
			if sock, resp = user.dial(s.b.url, "/ws/documents/bounded", nil); sock == nil {
				return fmt.Errorf("a socket is refused: %s", resp.Status)
			}
			return nil
		})
		sock.authenticate()
		users, socks = append(users, user), append(socks, sock)
	}
	o.begin(t, s)
	if o.lasts {
		s.b.waitStatus("/readyz", http.StatusServiceUnavailable, 30*time.Second)
	}
	for _, user := range users {
		if a := user.post(s.a.url+"/logout", nil); a.status != http.StatusSeeOther {
			t.Fatalf("logout: %d", a.status)
		}
	}
	o.end(s)
	returned := time.Now()
	var took []time.Duration
	for _, sock := range socks {
		sock.wantClose(4401, "logout")
		took = append(took, max(0, sock.ended.Sub(returned)))
	}
	return took
}

// Redis away for longer than max_unverified: nobody knows who is still logged in, so that the sockets are closed. When
// it is back they may come back.
func TestUnverifiedForTooLong(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	link := redistest.NewLink(t, redis.Addr())
	r := startReplica(t, settings{
		redis: strings.Replace(redis.URL(), redis.Addr(), link.Addr(), 1),
		more:  "session: {verify_every: 500ms, max_unverified: 2s}\n",
	})
	ada := newPerson(t)
	ada.register(r.url, "ada")
	sock := ada.open(r.url, "unverified")
	link.Cut()
	sock.wantClose(4503, "")
	link.Heal()
	r.waitStatus("/readyz", http.StatusOK, 20*time.Second)
	ada.open(r.url, "unverified").operation("1", "back")
}
