package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// fleet is three replicas, each with a link of its own to Redis. Its methods are for the test's goroutine, but for
// anywhere.
type fleet struct {
	t        *testing.T
	settings []settings
	links    []*redistest.Link // nil: they talk to Redis directly

	mu       sync.Mutex
	replicas []*replica
}

// busy are limits for clients that do nothing else.
const busy = `
limits: {frames_per_second: 0, operations_per_second: 0}
documents: {keep_operations: 100000}
webapp: {registration: open}
`

// startFleet runs replicas on the Redis at addr, over links that can be cut.
func startFleet(t *testing.T, redis *redistest.Server) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for range 3 {
		link := redistest.NewLink(t, redis.Addr())
		f.links = append(f.links, link)
		f.settings = append(f.settings, settings{redis: redis.URLAt(link.Addr()), more: busy})
	}
	f.start()
	return f
}

// startFleetAt runs replicas on the Redis of a URL.
func startFleetAt(t *testing.T, url string) *fleet {
	t.Helper()
	s := settings{redis: url, more: busy}
	f := &fleet{t: t, settings: []settings{s, s, s}}
	f.start()
	return f
}

func (f *fleet) start() {
	f.t.Helper()
	for _, s := range f.settings {
		f.replicas = append(f.replicas, startReplica(f.t, s))
	}
}

// anywhere is the URL of a replica that may be dead.
func (f *fleet) anywhere(n int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas[n%len(f.replicas)].url
}

// kill ends a replica with SIGKILL and starts another in its place.
func (f *fleet) kill(n int) {
	f.t.Helper()
	f.replicas[n].kill()
	r := startReplica(f.t, f.settings[n])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas[n] = r
}

// ledger has clients publish to documents while things happen, and then compares what everybody has.
type ledger struct {
	fleet      *fleet
	seed       uint64
	name       string // begins the names of documents
	clients    int
	documents  int
	operations int // of each client, over all documents
	lasting    time.Duration

	followers []*follower
	followed  *errgroup.Group
	stop      context.CancelFunc
	rng       *rand.Rand
}

// begin has the clients connect and publish.
func (l *ledger) begin(t *testing.T, who *person) {
	t.Helper()
	l.rng = rand.New(rand.NewPCG(l.seed, 0))
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	l.followed = new(errgroup.Group)
	cookies := who.cookies(l.fleet.anywhere(0))
	for c := range l.clients {
		for d := range l.documents {
			each := (l.operations + d) / l.documents // adds up
			rng := rand.New(rand.NewPCG(l.seed, uint64(1+c*l.documents+d)))
			f := &follower{
				name: fmt.Sprint("client", c), document: fmt.Sprintf("%s-%d", l.name, d), cookies: cookies, rng: rng,
				where:   func() string { return l.fleet.anywhere(rng.IntN(3)) },
				payload: func() string { return strings.Repeat("x", rng.IntN(100)) },
				publish: each, pace: l.lasting / time.Duration(each),
			}
			if c == 0 { // reads more slowly than the others write
				f.slow.Store(int64(f.pace) / int64(l.clients) * 3 / 2)
			}
			f.reached.Store(&place{})
			l.followers = append(l.followers, f)
			l.followed.Go(func() error { return f.run(ctx) })
		}
	}
	t.Cleanup(func() { // should the test have failed
		l.stop()
		_ = l.followed.Wait()
	})
}

// whileWorking runs what happens, one after the other, spread over the time until all is published.
func (l *ledger) whileWorking(t *testing.T, happens ...func()) {
	t.Helper()
	for i, happen := range happens {
		l.await(t, l.clients*l.operations*(i+1)/(len(happens)+1))
		happen()
	}
	// The slow client's last acknowledgements wait behind what it has not read.
	l.await(t, l.clients*l.operations*9/10)
	for _, f := range l.followers {
		f.slow.Store(0)
	}
	l.await(t, l.clients*l.operations)
}

// await returns when so many operations have been acknowledged.
func (l *ledger) await(t *testing.T, acked int) {
	t.Helper()
	last, since := -1, time.Now()
	eventually(t, 10*time.Minute, func() error {
		sum := 0
		for _, f := range l.followers {
			sum += int(f.acked.Load())
		}
		if sum >= acked {
			return nil
		}
		if sum > last {
			last, since = sum, time.Now()
		}
		if time.Since(since) > time.Minute {
			for _, f := range l.followers {
				if n := int(f.acked.Load()); n < f.publish {
					t.Logf("%s has %d of %d in %s acknowledged, and is at %v", f.name, n, f.publish, f.document, *f.reached.Load())
				}
			}
			t.Fatalf("%d of %d operations acknowledged, none in the last minute", sum, acked)
		}
		return fmt.Errorf("%d of %d operations acknowledged", sum, acked)
	})
}

// settle waits until everybody has everything and returns the log of each document, read anew.
func (l *ledger) settle(t *testing.T, who *person) map[string]*follower {
	t.Helper()
	truths := map[string]*follower{}
	for _, f := range l.followers {
		truth := truths[f.document]
		if truth == nil {
			truth = l.read(t, who, f.document)
			truths[f.document] = truth
		}
		eventually(t, time.Minute, func() error {
			if at := *f.reached.Load(); at != truth.at {
				return fmt.Errorf("%s has %s up to %v, the log goes to %v", f.name, f.document, at, truth.at)
			}
			return nil
		})
	}
	l.stop()
	if err := l.followed.Wait(); err != nil {
		t.Fatal(err)
	}
	return truths
}

// read follows a document from its beginning to where it ends now.
func (l *ledger) read(t *testing.T, who *person, document string) *follower {
	t.Helper()
	var head struct {
		Epoch string
		Seq   int
	}
	eventually(t, 30*time.Second, func() error {
		if status := l.fleet.replicas[0].adminJSON("GET", "documents/"+document, nil, &head); status != 200 {
			return fmt.Errorf("admin: %d", status)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &follower{
		name: "reader", document: document, cookies: who.cookies(l.fleet.anywhere(0)),
		where: func() string { return l.fleet.anywhere(0) },
	}
	f.reached.Store(&place{})
	var g errgroup.Group
	g.Go(func() error { return f.run(ctx) })
	eventually(t, time.Minute, func() error {
		if at := *f.reached.Load(); at != place(head) {
			return fmt.Errorf("read up to %v of %v", at, head)
		}
		return nil
	})
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return f
}

// check compares everybody's log, and what was acknowledged, with the log as it is. It returns how many operations
// were acknowledged and are not there.
func (l *ledger) check(t *testing.T, who *person) (lost int) {
	t.Helper()
	truths := l.settle(t, who)
	total := counts{}
	for document, truth := range truths {
		where := map[string]int{}
		for i, what := range truth.log {
			id := strings.Fields(what)[1]
			if first, twice := where[id]; twice {
				t.Errorf("%s: %s is in the log at %d and at %d", document, id, first, i+1)
			}
			where[id] = i + 1
		}
		for _, f := range l.followers {
			if f.document != document {
				continue
			}
			total.add(f.told)
			if !slices.Equal(f.log, truth.log) {
				t.Errorf("%s: %s has another log: %d operations, not %d", document, f.name, len(f.log), len(truth.log))
			}
			lost += f.missing(t, where, truth.at.Epoch)
		}
	}
	t.Logf("%d connections, %d times lagged by %d, %d syncs, %d refusals", total.connections, total.lagged, total.dropped, total.syncs, total.refused)
	return lost
}

// missing counts the acknowledged operations that are not in the log. Those of its present epoch have to be.
func (f *follower) missing(t *testing.T, where map[string]int, epoch string) (lost int) {
	t.Helper()
	for id, at := range f.acks {
		switch seq, there := where[id]; {
		case !there:
			lost++
			if at.Epoch == epoch {
				t.Errorf("%s: %s was acknowledged as %v and is not in the log", f.document, id, at)
			}
		case at.Epoch == epoch && seq != at.Seq:
			t.Errorf("%s: %s was acknowledged as %v and is at %d", f.document, id, at, seq)
		}
	}
	if len(f.pending) > 0 || len(f.acks) != f.publish {
		t.Errorf("%s in %s: %d of %d acknowledged", f.name, f.document, len(f.acks), f.publish)
	}
	return lost
}

func (c *counts) add(d counts) {
	c.connections += d.connections
	c.lagged += d.lagged
	c.dropped += d.dropped
	c.syncs += d.syncs
	c.refused += d.refused
}

// ledgerSeeds are the seeds of a run: those of TANDEM_LEDGER_SEEDS, or new ones.
func ledgerSeeds(t *testing.T) []uint64 {
	t.Helper()
	var seeds []uint64
	for s := range strings.FieldsSeq(os.Getenv("TANDEM_LEDGER_SEEDS")) {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("TANDEM_LEDGER_SEEDS: %v", err)
		}
		seeds = append(seeds, seed)
	}
	for len(seeds) < documentSizes.seeds && os.Getenv("TANDEM_LEDGER_SEEDS") == "" {
		seeds = append(seeds, rand.Uint64())
	}
	return seeds
}

// Replicas are killed, links are cut, one client reads slowly: everybody ends with the same log, and everything that
// was acknowledged is in it once. TANDEM_LEDGER_OPERATIONS is how many operations each client publishes.
func TestLedger(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	fleet := startFleet(t, redis)
	ada := newPerson(t)
	ada.register(fleet.anywhere(0), "ada")
	operations, lasting, faults := documentSizes.operations, documentSizes.lasting, documentSizes.faults
	if s := os.Getenv("TANDEM_LEDGER_OPERATIONS"); s != "" {
		var err error
		if operations, err = strconv.Atoi(s); err != nil {
			t.Fatalf("TANDEM_LEDGER_OPERATIONS: %v", err)
		}
		lasting = time.Duration(operations) * 15 * time.Millisecond
		faults = int(lasting / (5 * time.Second))
	}
	for i, seed := range ledgerSeeds(t) {
		t.Logf("seed %d: TANDEM_LEDGER_SEEDS=%d TANDEM_LEDGER_OPERATIONS=%d", i, seed, operations)
		began := time.Now()
		l := &ledger{
			fleet: fleet, seed: seed, name: fmt.Sprint("ledger", i),
			clients: 6, documents: 3, operations: operations, lasting: lasting,
		}
		l.begin(t, ada)
		var happens []func()
		for n := range faults {
			happens = append(happens, l.fault(n))
		}
		l.whileWorking(t, happens...)
		if lost := l.check(t, ada); lost > 0 {
			t.Errorf("%d acknowledged operations are lost", lost)
		}
		for _, f := range l.followers {
			if len(f.epochs) != 1 {
				t.Errorf("%s saw the epochs %v, and Redis was well", f.name, f.epochs)
			}
		}
		t.Logf("seed %d: %d operations in %v", i, l.clients*operations, time.Since(began).Round(time.Millisecond))
	}
}

// fault is something that happens: a replica dies, or loses Redis, in turn.
func (l *ledger) fault(n int) func() {
	return func() {
		if n%2 == 0 {
			l.fleet.kill(l.rng.IntN(3))
			return
		}
		link := l.fleet.links[l.rng.IntN(3)]
		link.Cut()
		wait(l.fleet.t, 100*time.Millisecond+time.Duration(l.rng.Int64N(int64(time.Second))))
		link.Heal()
	}
}

// documentProofs says how much each proof does.
type documentProofs struct {
	seeds      int           // of the ledger
	operations int           // of each client there
	lasting    time.Duration // how long they take to publish them, undisturbed
	faults     int           // meanwhile
	ghosts     int           // members of a replica that is killed
	lagging    int           // operations that pass a client who does not read
	stopped    time.Duration // for that long
	frames     int           // mutated ones sent to a replica
	pageKills  int           // replicas killed while two pages publish
}
