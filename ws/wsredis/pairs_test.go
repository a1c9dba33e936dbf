package wsredis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
)

const pairHash = "tandem:pair:{pair:p}"

// pairPlane is a running Pairs with its Backplane.
type pairPlane struct {
	*wsredis.Pairs
	replica *replica
}

func startPairs(t testing.TB, name, addr string) *pairPlane {
	t.Helper()
	return runPairs(t, start(t, name, addr))
}

func runPairs(t testing.TB, r *replica) *pairPlane {
	t.Helper()
	p, err := wsredis.NewPairs(wsredis.PairsConfig{Backplane: r.Backplane, Grace: 2 * time.Second, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "hints to be heard", func() bool { return p.Healthy() == nil })
	return &pairPlane{p, r}
}

// sideListener keeps what it hears.
type sideListener struct {
	mu     sync.Mutex
	state  ws.PairState
	heard  []ws.PairState
	calls  int
	posted int
	lost   bool
}

func (l *sideListener) PairChanged(s ws.PairState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	l.heard = append(l.heard, s)
	l.calls++
}

func (l *sideListener) PairPosted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted++
}

func (l *sideListener) PairLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
}

func (l *sideListener) now() ws.PairState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *sideListener) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// seated is a side that is held.
type seated struct {
	ws.PairClaim
	*sideListener
	t testing.TB
}

func claim(t testing.TB, p *pairPlane, side ws.Side, connection, session string) (*seated, error) {
	t.Helper()
	l := &sideListener{}
	c, err := p.Claim(t.Context(), ws.PairSeat{
		Pair: "p", Side: side, Mode: ws.ModeRelay, Connection: connection, Session: session,
	}, l)
	return &seated{c, l, t}, err
}

func look(t testing.TB, p *pairPlane, side ws.Side, session string) error {
	t.Helper()
	return p.Look(t.Context(), ws.PairSeat{Pair: "p", Side: side, Mode: ws.ModeRelay, Connection: "looks", Session: session})
}

func mustClaim(t testing.TB, p *pairPlane, side ws.Side, connection string) *seated {
	t.Helper()
	c, err := claim(t, p, side, connection, "")
	if err != nil {
		t.Fatalf("%s for %s: %v", side, connection, err)
	}
	return c
}

// release frees the side.
func (s *seated) release() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s.Release(ctx)
}

// met waits for a counterpart that is not the one before.
func (s *seated) met(before uint64) ws.PairState {
	s.t.Helper()
	eventually(s.t, "the counterpart", func() bool { n := s.now(); return n.Counterpart != 0 && n.Counterpart != before })
	return s.now()
}

func (s *seated) post(p ws.PairPost, texts ...string) (ws.PairReceipt, bool) {
	s.t.Helper()
	p.Count = len(texts)
	for _, text := range texts {
		p.Messages = append(p.Messages, ws.PairMessage{Kind: ws.PairText, Data: []byte(text)})
	}
	r, ok, err := s.Post(s.t.Context(), p)
	if err != nil {
		s.t.Fatalf("post: %v", err)
	}
	return r, ok
}

func (s *seated) take(after uint64) (uint64, string) {
	s.t.Helper()
	next, b, ok, err := s.Take(s.t.Context(), s.now().Unique, after)
	if err != nil || !ok {
		s.t.Fatalf("take after %d: %v %v", after, ok, err)
	}
	text := ""
	for i, m := range b.Messages {
		text += fmt.Sprintf("%d%c%s ", b.First+uint64(i), m.Kind, m.Data)
	}
	return next, text
}

func TestPairClaims(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b := startPairs(t, "a", s.Addr()), startPairs(t, "b", s.Addr())
		left, err := claim(t, a, ws.Left, "one", "session")
		if err != nil {
			t.Fatal(err)
		}
		before := left.now()
		if before.Unique == "" || before.Mode != ws.ModeRelay || before.Counterpart != 0 {
			t.Fatalf("%+v", before)
		}
		for _, session := range []string{"", "another"} {
			for _, p := range []*pairPlane{a, b} {
				if _, err := claim(t, p, ws.Left, "two", session); !errors.Is(err, ws.ErrSideTaken) {
					t.Errorf("second claim: %v", err)
				}
				if err := look(t, p, ws.Left, session); !errors.Is(err, ws.ErrSideTaken) {
					t.Errorf("a look at a taken side: %v", err)
				}
			}
		}
		for side, session := range map[ws.Side]string{ws.Left: "session", ws.Right: ""} {
			if err := look(t, b, side, session); err != nil {
				t.Errorf("a look at the %s side: %v", side, err)
			}
		}
		right := mustClaim(t, b, ws.Right, "right")
		first := right.met(0).Counterpart
		if u := left.met(0).Unique; u != before.Unique || right.now().Unique != u {
			t.Errorf("%s, %s, before %s", u, right.now().Unique, before.Unique)
		}
		// The same session is somebody else to its counterpart.
		again, err := claim(t, b, ws.Left, "two", "session")
		if err != nil {
			t.Fatal(err)
		}
		right.met(first)
		eventually(t, "the first to hear that it lost its side", left.isLost)
		left.Refresh() // it must not take the side back
		left.release() // nor free it
		again.release()
		eventually(t, "the counterpart to be gone", func() bool { return right.now().Counterpart == 0 })
	})
}

// A post counts only for the pair, the counterpart and the number that the
// caller believes in; repeated it counts once.
func TestPairPosts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b := startPairs(t, "a", s.Addr()), startPairs(t, "b", s.Addr())
		left, right := mustClaim(t, a, ws.Left, "left"), mustClaim(t, b, ws.Right, "right")
		state := left.met(0)
		good := ws.PairPost{Unique: state.Unique, To: state.Counterpart, Number: 1}
		for name, change := range map[string]func(*ws.PairPost){
			"pair":        func(p *ws.PairPost) { p.Unique = "other" },
			"counterpart": func(p *ws.PairPost) { p.To++ },
			"nobody":      func(p *ws.PairPost) { p.To = 0 },
			"number":      func(p *ws.PairPost) { p.Number++ },
			"no number":   func(p *ws.PairPost) { p.Number = 0 },
		} {
			p := good
			change(&p)
			if r, ok := left.post(p, "x"); ok {
				t.Errorf("another %s: %+v", name, r)
			}
		}
		for range 3 {
			if r, ok := left.post(good, "x", "", "z"); !ok || r != (ws.PairReceipt{}) {
				t.Fatalf("%+v %v", r, ok)
			}
		}
		for i := uint64(2); i <= ws.PairWindow; i++ {
			good.Number = i
			if r, ok := left.post(good, "x"); !ok || r.First != i+1 {
				t.Fatalf("%+v %v", r, ok)
			}
		}
		good.Number = ws.PairWindow + 1
		if _, ok := left.post(good, "over"); ok {
			t.Fatal("posted past the window")
		}

		for range 2 {
			if n, texts := right.take(0); n != 1 || texts != "0tx 1t 2tz " {
				t.Fatalf("%d %q", n, texts)
			}
		}
		if n, texts := right.take(1); n != 2 || texts != "3tx " {
			t.Fatalf("%d %q", n, texts)
		}
		eventually(t, "the sender to hear of room", func() bool { return left.now().Delivered == 1 })
		if r, ok := left.post(good, "fits"); !ok || r.Delivered != 1 {
			t.Fatalf("%+v %v", r, ok)
		}

		// What was not taken when the receiver left is lost, and known to be.
		right.release()
		eventually(t, "the counterpart to be gone", func() bool { return left.now().Counterpart == 0 })
		if n := left.now(); n.LostFrom != 2 || n.LostTo != good.Number || n.Delivered != good.Number {
			t.Errorf("%+v", n)
		}
		next := mustClaim(t, b, ws.Right, "next")
		if n, texts := next.take(next.now().Taken); n != good.Number || texts != "" {
			t.Errorf("%d %q", n, texts)
		}
		if _, ok := left.post(ws.PairPost{Unique: good.Unique, To: good.To, Number: good.Number + 1}, "x"); ok {
			t.Error("posted to a counterpart that had left")
		}
	})
}

// The hash lives while a side is held, and for the grace after; nothing else
// is written for it.
func TestPairKeyTable(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, admin := startPairs(t, "a", s.Addr()), s.Client(t)
		left, right := mustClaim(t, a, ws.Left, "left"), mustClaim(t, a, ws.Right, "right")
		for _, key := range allKeys(t, admin) {
			if key != pairHash && !strings.HasPrefix(key, "tandem:replica:{a.") {
				t.Errorf("%s is not in the table", key)
			}
		}
		ttl := func() time.Duration { return admin.PTTL(t.Context(), pairHash).Val() }
		if kind := admin.Type(t.Context(), pairHash).Val(); kind != "hash" || ttl() > 2*time.Minute || ttl() < time.Minute {
			t.Errorf("%s that lives for %s", kind, ttl())
		}
		if err := admin.Expire(t.Context(), pairHash, 50*time.Second).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the tick to prolong it", func() bool { return ttl() > time.Minute })
		left.release()
		if ttl() < time.Minute {
			t.Errorf("lives for %s with one side held", ttl())
		}
		right.release()
		if ttl() > 2*time.Second {
			t.Errorf("lives for %s with no side held", ttl())
		}
		eventually(t, "it to be gone", func() bool { return admin.Exists(t.Context(), pairHash).Val() == 0 })
	})
}

// A hint about a claim may come while that is released: nobody sits there
// after, neither in the store nor for the counterpart.
func TestPairReleaseUnderHints(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, b, admin := startPairs(t, "a", s.Addr()), startPairs(t, "b", s.Addr()), s.Client(t)
		for i := range 200 {
			left := mustClaim(t, a, ws.Left, fmt.Sprint("left", i))
			right := mustClaim(t, b, ws.Right, fmt.Sprint("right", i))
			var both sync.WaitGroup
			for _, side := range []*seated{left, right} {
				both.Go(side.Refresh)
				both.Go(side.release)
			}
			both.Wait()
			for _, field := range []string{"left", "right"} {
				if admin.HExists(t.Context(), pairHash, field).Val() {
					t.Fatalf("round %d: %s is held", i, field)
				}
			}
		}
	})
}

// A side that could not be freed is freed when Redis is back, though its
// replica lives.
func TestPairReleasedWhileCut(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link := redistest.NewLink(t, s.Addr())
		a, b, admin := startPairs(t, "a", link.Addr()), startPairs(t, "b", s.Addr()), s.Client(t)
		left := mustClaim(t, a, ws.Left, "left")
		right := mustClaim(t, b, ws.Right, "right")
		right.met(0)
		link.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		left.Release(ctx)
		cancel()
		link.Heal()
		eventually(t, "the side to be free", func() bool { return !admin.HExists(t.Context(), pairHash, "left").Val() })
		eventually(t, "the counterpart to be gone", func() bool { return right.now().Counterpart == 0 })
	})
}

// A subscription that went deaf is noticed and replaced, and what it missed is
// made good.
func TestPairDeafSubscription(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		link := redistest.NewLink(t, s.Addr())
		a, b := startPairs(t, "a", link.Addr()), startPairs(t, "b", s.Addr())
		left := mustClaim(t, a, ws.Left, "left")
		link.DropIdle()
		right := mustClaim(t, b, ws.Right, "right")
		left.met(0)
		right.release()
		eventually(t, "the counterpart to be gone", func() bool { return left.now().Counterpart == 0 })
		eventually(t, "hints to be heard again", func() bool { return a.Healthy() == nil })
	})
}

func TestPairEndedContext(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := startPairs(t, "a", s.Addr())
		left := mustClaim(t, a, ws.Left, "left")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Claim(ctx, ws.PairSeat{Pair: "q", Side: ws.Left, Mode: ws.ModeEcho, Connection: "c"}, &sideListener{}); !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("claim: %v", err)
		}
		if _, _, err := left.Post(ctx, ws.PairPost{}); !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("post: %v", err)
		}
		if _, _, _, err := left.Take(ctx, "", 0); !errors.Is(err, ws.ErrUnavailable) {
			t.Errorf("take: %v", err)
		}
	})
}

func TestPairsConfig(t *testing.T) {
	if _, err := wsredis.NewPairs(wsredis.PairsConfig{}); err == nil {
		t.Error("no Backplane, no error")
	}
}

// In a Cluster the pair, the leases and the hints are in different slots and
// on any node.
func TestPairInCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 0)
	over := func(name string) *pairPlane {
		b, err := wsredis.New(wsredis.Config{Client: cluster.Client(t), Replica: name, Tick: tick})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = b.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		return runPairs(t, &replica{Backplane: b})
	}
	a, b := over("a"), over("b")
	left, right := mustClaim(t, a, ws.Left, "left"), mustClaim(t, b, ws.Right, "right")
	state := left.met(0)
	right.met(0)
	if _, ok := left.post(ws.PairPost{Unique: state.Unique, To: state.Counterpart, Number: 1}, "x"); !ok {
		t.Fatal("not posted")
	}
	eventually(t, "the hint", func() bool { right.mu.Lock(); defer right.mu.Unlock(); return right.posted == 1 })
	if n, texts := right.take(0); n != 1 || texts != "0tx " {
		t.Errorf("%d %q", n, texts)
	}
	if _, err := claim(t, b, ws.Left, "two", ""); !errors.Is(err, ws.ErrSideTaken) {
		t.Errorf("%v", err)
	}
	left.release()
	eventually(t, "the counterpart to be gone", func() bool { return right.now().Counterpart == 0 })
}
