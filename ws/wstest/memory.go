// Package wstest holds what tests of the ws package and of its Backplanes
// share: a Backplane in memory whose faults can be switched on, the contract
// test that every Backplane must pass, and a client of the tandem.v1 protocol.
package wstest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// Network is what replicas share: the stand-in for Redis. Safe for concurrent
// use. Receivers are called from one goroutine per subscription, which lives
// from Subscribe to unsubscribe.
type Network struct {
	// Fixed after construction.
	keep int

	mu        sync.Mutex // guards all below and the fields of what it holds
	documents map[string]*document
	replicas  map[string]*Replica
	epochs    int // epochs begun so far
}

// document is one document's state; Network.mu guards it.
type document struct {
	epoch       string
	entries     []ws.Entry // the last keep of them
	tails       [][]byte   // of entries, as a new epoch numbers them again
	head        uint64
	snapshotSeq uint64
	snapshot    []byte
	seen        map[string]uint64 // user NUL id → seq
	members     map[string]presentMember
}

type presentMember struct {
	ws.Member
	replica string
}

// Replica is one replica's Backplane, with switches for its faults.
type Replica struct {
	network *Network
	name    string

	// Guarded by network.mu.
	subscriptions map[string]*subscription
	places        places
	unavailable   bool
	dead          bool
	loseReplies   int
	drop          int
	duplicate     bool
	delay         time.Duration
}

var _ ws.Backplane = (*Replica)(nil)

// NewNetwork makes an empty network whose logs keep that many operations; 0
// means 10,000.
func NewNetwork(keep int) *Network {
	if keep <= 0 {
		keep = 10_000
	}
	return &Network{keep: keep, documents: map[string]*document{}, replicas: map[string]*Replica{}}
}

// Replica returns the Backplane of the replica of that name, always the same.
func (n *Network) Replica(name string) *Replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.replicas[name]
	if r == nil {
		r = &Replica{network: n, name: name, subscriptions: map[string]*subscription{}, places: places{}}
		n.replicas[name] = r
	}
	return r
}

// LoseLog empties the document's log and snapshot: a new epoch, and a Gap for
// everybody. Presence stays.
func (n *Network) LoseLog(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.documentLocked(id)
	d.entries, d.tails, d.head, d.snapshotSeq, d.snapshot = nil, nil, 0, 0, nil
	d.seen = map[string]uint64{}
	n.beginEpochLocked(id, d)
}

// LoseOperations takes the newest count operations back, as a failover to a
// lagging copy does. Nobody is told.
func (n *Network) LoseOperations(id string, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.documentLocked(id)
	count = min(count, len(d.entries))
	d.entries = d.entries[:len(d.entries)-count]
	d.tails = d.tails[:len(d.entries)]
	d.head -= uint64(count)
	maps.DeleteFunc(d.seen, func(_ string, seq uint64) bool { return seq > d.head })
}

// Kill ends the replica as a crash does: its calls fail, nothing is delivered
// to it any more, and its members leave with the reason "replica".
func (r *Replica) Kill() {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if r.dead {
		return
	}
	r.dead = true
	for id, d := range r.network.documents {
		var change ws.PresenceChange
		for _, conn := range slices.Sorted(maps.Keys(d.members)) {
			if m := d.members[conn]; m.replica == r.name {
				delete(d.members, conn)
				change.Left = append(change.Left, ws.Departure{Member: m.Member, Reason: "replica"})
			}
		}
		if !change.Empty() {
			r.network.announceLocked(id, presenceOf(change))
		}
	}
}

// SetUnavailable cuts the replica off: its calls fail without effect and
// announcements do not reach it. Back again, its receivers get a Gap.
func (r *Replica) SetUnavailable(off bool) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	back := r.unavailable && !off
	r.unavailable = off
	if back {
		r.gapLocked()
	}
}

// LoseReplies lets the next count calls take effect and yet fail.
func (r *Replica) LoseReplies(count int) { r.set(func() { r.loseReplies = count }) }

// Drop loses the next count announcements on their way to the replica. Lost
// ones of presence are noticed soon, as by a Backplane's tick: a Gap.
func (r *Replica) Drop(count int) { r.set(func() { r.drop = count }) }

// Duplicate delivers each announcement twice while on.
func (r *Replica) Duplicate(on bool) { r.set(func() { r.duplicate = on }) }

// Delay holds each announcement back for d. Their order stays.
func (r *Replica) Delay(d time.Duration) { r.set(func() { r.delay = d }) }

// Gap tells all receivers of the replica that announcements may be lost.
func (r *Replica) Gap() { r.set(r.gapLocked) }

func (r *Replica) set(change func()) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	change()
}

// Subscribe implements ws.Backplane.
func (r *Replica) Subscribe(ctx context.Context, id string, to ws.Receiver) (func(), error) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return nil, err
	}
	if r.subscriptions[id] != nil {
		return nil, fmt.Errorf("document %s is subscribed already", id)
	}
	s := newSubscription(to)
	r.subscriptions[id] = s
	var once sync.Once
	return func() {
		once.Do(func() {
			r.set(func() { delete(r.subscriptions, id) })
			s.stop()
		})
	}, nil
}

// Announce implements ws.Backplane.
func (r *Replica) Announce(ctx context.Context, id string, change ws.PresenceChange) error {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return err
	}
	d := r.network.documentLocked(id)
	for _, m := range slices.Concat(change.Joined, change.Updated) {
		d.members[m.ConnectionID] = presentMember{m, r.name}
	}
	for _, m := range change.Left {
		delete(d.members, m.ConnectionID)
	}
	r.network.announceLocked(id, presenceOf(change))
	return r.replyLocked()
}

// Members implements ws.Backplane.
func (r *Replica) Members(ctx context.Context, id string) ([]ws.Member, error) {
	r.network.mu.Lock()
	defer r.network.mu.Unlock()
	if err := r.reachableLocked(ctx); err != nil {
		return nil, err
	}
	var members []ws.Member
	for _, m := range r.network.documentLocked(id).members {
		members = append(members, m.Member)
	}
	slices.SortFunc(members, func(a, b ws.Member) int { return strings.Compare(a.ConnectionID, b.ConnectionID) })
	return members, r.replyLocked()
}

func (r *Replica) reachableLocked(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ws.ErrUnavailable, err)
	}
	if r.unavailable || r.dead {
		return fmt.Errorf("%w: replica %s is cut off", ws.ErrUnavailable, r.name)
	}
	return nil
}

// replyLocked is the answer of a call that has taken effect.
func (r *Replica) replyLocked() error {
	if r.loseReplies > 0 {
		r.loseReplies--
		return fmt.Errorf("%w: the reply was lost", ws.ErrUnavailable)
	}
	return nil
}

func (r *Replica) gapLocked() {
	for _, s := range r.subscriptions {
		s.add(0, ws.Receiver.Gap)
	}
}

// news is an announcement; lost is what a receiver gets in its place.
type news struct{ deliver, lost func(ws.Receiver) }

func presenceOf(change ws.PresenceChange) news {
	return news{func(to ws.Receiver) { to.Presence(change) }, ws.Receiver.Gap}
}

// noticed is how long it takes until a lost announcement is noticed.
const noticed = 10 * time.Millisecond

// announceLocked delivers to every replica that has the document open.
func (n *Network) announceLocked(id string, what news) {
	for _, r := range n.replicas {
		s := r.subscriptions[id]
		switch {
		case s == nil || r.dead || r.unavailable:
			continue
		case r.drop > 0:
			r.drop--
			if what.lost != nil {
				s.add(noticed, what.lost)
			}
			continue
		}
		s.add(r.delay, what.deliver)
		if r.duplicate {
			s.add(r.delay, what.deliver)
		}
	}
}

func (n *Network) documentLocked(id string) *document {
	d := n.documents[id]
	if d == nil {
		d = &document{seen: map[string]uint64{}, members: map[string]presentMember{}}
		n.documents[id] = d
		n.epochs++
		d.epoch = fmt.Sprintf("epoch%d", n.epochs)
	}
	return d
}
