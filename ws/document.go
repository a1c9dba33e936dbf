package ws

import (
	"context"
	"sync"
	"time"
)

// presenceTick is the shortest pause between two presence frames of a
// document, and between two announcements of its own members.
const presenceTick = 50 * time.Millisecond

// document is what this replica knows of one document while somebody here
// has joined it: the rings its members read from, and who is present.
//
// It receives what the backplane announces, one announcement at a time and
// without blocking. Its one goroutine, run, does all that needs Redis:
// announcing its own members and reading again what was missed.
type document struct {
	// Fixed after construction.
	hub   *Hub
	id    string
	ctx   context.Context // until close
	stop  context.CancelFunc
	work  chan struct{} // capacity 1: run has something to do
	ready chan struct{} // closed when open has finished
	gone  chan struct{} // closed when close has finished and the hub has forgotten it

	// Written by open before ready is closed.
	err         error
	unsubscribe func()

	// Guarded by Hub.mu.
	refs int // joins under way and members; at 0 it closes, for good

	running sync.WaitGroup

	operations, presence *ring // pushed under mu, read without it

	mu       sync.Mutex // guards the following; lock order: document.mu, conn.mu
	members  map[*conn]Member
	roster   roster                   // everybody, over all replicas
	absent   map[string]absent        // own members whose connection was lost, by connection
	listing  func() []byte            // members and roster, encoded for replies; nil: not since they changed
	awaited  map[string]chan struct{} // by connection: closed when its announcement has come back, or failed
	at       Position                 // of the newest operation in the ring
	known    Position                 // the newest heard of; where it is past at, operations are missing
	outgoing merge                    // own members' changes, to be announced
	incoming merge                    // everybody's changes, to be broadcast
	tick     *time.Timer
	trimming *time.Timer                           // nil: the rings are empty
	read     struct{ operations, presence uint64 } // heads of the rings when they were trimmed last
	ticked   time.Time                             // when the last presence frame was pushed
	need     needs
	during   *merge // changes that came while members are being read; nil: they are not
	closed   bool
}

func newDocument(h *Hub, id string) *document {
	d := &document{
		hub: h, id: id, refs: 1,
		work:       make(chan struct{}, 1),
		ready:      make(chan struct{}),
		gone:       make(chan struct{}),
		operations: newRing(h.cfg.Documents.OperationsBehind),
		presence:   newRing(h.cfg.Documents.PresenceBehind),
		members:    make(map[*conn]Member),
		roster:     newRoster(),
		absent:     make(map[string]absent),
		awaited:    make(map[string]chan struct{}),
	}
	d.ctx, d.stop = context.WithCancel(h.ctx)
	return d
}

// open subscribes, then reads where the log stands and who is there. On an
// error the document is of no use.
func (d *document) open() {
	defer close(d.ready)
	ctx, cancel := context.WithTimeout(d.ctx, callTimeout)
	defer cancel()
	if d.unsubscribe, d.err = d.hub.cfg.Backplane.Subscribe(ctx, d.id, d); d.err != nil {
		return
	}
	h, err := d.hub.cfg.Backplane.History(ctx, d.id, nil, 1)
	if err == nil {
		d.mu.Lock()
		missed := d.known // announced since the subscription
		d.at = Position{h.Epoch, h.Head}
		d.known = d.at
		if missed.Epoch != "" {
			d.noteLocked(missed, atOnce)
		}
		d.mu.Unlock()
		err = d.readMembers(ctx)
	}
	if d.err = err; err != nil {
		return
	}
	d.mu.Lock()
	d.incoming = merge{} // there is nobody to tell yet
	d.mu.Unlock()
	d.running.Go(d.run)
}

// close ends the document after its last member has left: their departure is
// announced first, for as long as it takes, since a presence that is not
// taken back stays. Callers have made sure that nobody uses the document.
func (d *document) close() {
	<-d.ready
	d.stop()
	d.running.Wait()
	for pause := presenceTick; d.err == nil; pause = min(2*pause, 2*time.Second) {
		if _, err := d.announce(d.hub.ctx); err == nil || !sleep(d.hub.ctx, pause) {
			break
		}
	}
	if d.unsubscribe != nil {
		d.unsubscribe()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, t := range []*time.Timer{d.tick, d.trimming} {
		if t != nil {
			t.Stop()
		}
	}
}

// Operation receives an appended operation. Backplane calls it; what does
// not follow on the newest one is either known or tells of a gap.
func (d *document) Operation(epoch string, e Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := Position{epoch, e.Seq}
	switch {
	case epoch == d.at.Epoch && e.Seq == d.at.Seq+1:
		d.pushLocked(at, e.Frame)
		d.wakeMembersLocked()
	case epoch == d.at.Epoch && e.Seq <= d.at.Seq:
	default:
		d.noteLocked(at, atOnce)
	}
}

// Presence receives a change of anybody's presence.
func (d *document) Presence(c PresenceChange) {
	d.mu.Lock()
	if d.during != nil {
		d.during.add(c)
	} else {
		d.presenceLocked(c)
	}
	replaced := d.replacedLocked(c.Left)
	d.mu.Unlock()
	d.forget(replaced)
}

// Gap receives the news that announcements may have been lost.
func (d *document) Gap() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.need.log = true
	d.need.members = true
	d.wakeLocked()
}

// pushLocked makes an operation the newest in the ring.
func (d *document) pushLocked(at Position, data []byte) {
	d.operations.push(&frame{position: at, wire: wired(data)})
	d.trimLaterLocked()
	d.at = at
	if d.known.Epoch != at.Epoch || d.known.Seq < at.Seq {
		d.known = at
	}
	d.hub.metrics.sent.WithLabelValues(channelOperations).Inc()
}

// restartLocked tells members that what comes before at has to be read
// again, lost operations at least being lost to them.
func (d *document) restartLocked(at Position, lost uint64) {
	d.operations.push(&frame{position: at, lost: lost})
	d.at, d.known = at, at
}

// presenceLocked follows a change and has it broadcast with the next tick.
func (d *document) presenceLocked(c PresenceChange) {
	news := d.roster.apply(c)
	d.listing = nil
	for _, m := range c.Joined {
		d.arrivedLocked(m.ConnectionID)
	}
	d.incoming.add(news)
	if d.incoming.empty() || d.closed || d.tick != nil {
		return
	}
	d.tick = time.AfterFunc(max(0, presenceTick-time.Since(d.ticked)), d.broadcastPresence)
}

// broadcastPresence is the tick: all that changed since the last becomes one
// frame.
func (d *document) broadcastPresence() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick = nil
	if d.closed || d.incoming.empty() {
		return
	}
	d.ticked = time.Now()
	d.presence.push(&frame{position: d.at, wire: wired(presenceFrame(d.incoming.take()))})
	d.trimLaterLocked()
	d.hub.metrics.sent.WithLabelValues(channelPresence).Inc()
	d.wakeMembersLocked()
}

// trimAfter is how long a broadcast is kept at least. It is longer than a
// newcomer takes from reading the log to following the ring.
const trimAfter = 30 * time.Second

func (d *document) trimLaterLocked() {
	if d.trimming == nil && !d.closed {
		d.trimming = time.AfterFunc(trimAfter, d.trim)
	}
}

// trim forgets the broadcasts that every member here has been sent: a document
// that is quiet keeps none.
func (d *document) trim() {
	d.mu.Lock()
	defer d.mu.Unlock()
	upTo := d.read
	for c := range d.members {
		c.mu.Lock()
		upTo.operations = min(upTo.operations, c.out.opCursor)
		upTo.presence = min(upTo.presence, c.out.presCursor)
		c.mu.Unlock()
	}
	d.operations.trim(upTo.operations)
	d.presence.trim(upTo.presence)
	d.read.operations, d.read.presence = d.operations.head.Load(), d.presence.head.Load()
	d.trimming = nil
	if !d.operations.empty() || !d.presence.empty() {
		d.trimLaterLocked()
	}
}

// wakeMembersLocked has everybody here take a turn at writing.
func (d *document) wakeMembersLocked() {
	turns := make([]*conn, 0, len(d.members))
	for c := range d.members {
		c.mu.Lock()
		switch {
		case c.wire.socket == nil:
			c.wakeLocked()
		case c.beginLocked():
			turns = append(turns, c)
		}
		c.mu.Unlock()
	}
	d.hub.shifts.add(turns...)
}

// newest returns the newest position that was heard of.
func (d *document) newest() Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known
}

// appended notes where an operation of this replica got its place. Its
// announcement should be on the way.
func (d *document) appended(at Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(at, soon)
}

// wakeLocked has run look at what there is to do.
func (d *document) wakeLocked() {
	select {
	case d.work <- struct{}{}:
	default:
	}
}
