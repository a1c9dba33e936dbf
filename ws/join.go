package ws

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// arrival bounds the wait for a newcomer's own announcement.
const arrival = time.Second

// maxReplyBytes is how many bytes of operations one reply holds.
const maxReplyBytes = 1 << 20

// join makes the connection a member of its document. It subscribes first,
// reads second, is announced third and delivers last, so that every operation
// is either in the reply or broadcast after it.
func (c *conn) join(req request) {
	var body struct {
		Since *Position `json:"since"`
	}
	if err := req.body(&body); err != nil {
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	}
	if c.doc != nil {
		c.fail(req.ID, CodeAlreadyJoined, "this connection has joined the document")
		return
	}
	if err := c.may(ActionRead); err != nil {
		c.refuseAccess(req.ID, ActionRead, err)
		return
	}
	ctx, cancel := c.call()
	defer cancel()
	d, err := c.hub.openDocument(ctx, c.document)
	if err != nil {
		c.unavailable(req.ID, err)
		return
	}
	h, err := d.historyFor(ctx, body.Since)
	if err != nil {
		c.hub.release(d)
		c.unavailable(req.ID, err)
		return
	}
	c.doc = d
	arrived := d.attach(c, Position{h.Epoch, h.Head})
	// Announcements come in one order: when its own has come back, all that
	// were made before have come too, and whoever joins after the reply,
	// anywhere, will hear of this one.
	select {
	case <-arrived:
	case <-time.After(arrival):
	case <-ctx.Done():
	}
	frame := joinedFrame(req.ID, c.document, h, d.everybody())
	// The gate opens with the reply, so that it comes before every broadcast.
	c.mu.Lock()
	c.setStateLocked(stateJoined)
	c.answerLocked(frame)
	c.mu.Unlock()
	c.armRecheck()
}

func (c *conn) leave(req request) {
	c.mu.Lock()
	c.setStateLocked(stateAuthenticated)
	c.mu.Unlock()
	c.leaveDocument(leftByRequest)
	c.reply(plainFrame{Type: "left_document", Re: req.ID})
}

// leaveDocument takes the connection out of its document, if it is in one.
func (c *conn) leaveDocument(reason string) {
	if d := c.letGo(); d != nil {
		d.detach(c, reason)
		c.hub.release(d)
	}
}

// excuseFromDocument takes the connection out of its document in a way that
// keeps its place for a moment.
func (c *conn) excuseFromDocument() {
	if d := c.letGo(); d.hub.cfg.Documents.PresenceGrace >= presenceTick {
		d.excuse(c) // holds the document from now on
	} else {
		d.detach(c, leftClosed)
		c.hub.release(d)
	}
}

// letGo forgets the document that the connection is in, and returns it.
func (c *conn) letGo() *document {
	d := c.doc
	c.doc = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.doc = nil
	if c.again != nil {
		c.again.Stop()
	}
	return d
}

// attach makes c a member that has read history up to seen: operations after
// it wait for c in the ring. arrived is closed when the announcement of c has
// come back, or failed.
func (d *document) attach(c *conn, seen Position) (arrived <-chan struct{}) {
	member := Member{ConnectionID: c.id, UserID: c.who.user, UserName: c.who.name, Color: c.who.color, Session: c.who.handle}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.members[c] = member
	d.listing = nil
	d.outgoing.join(member)
	if lost, ok := d.placeOfLocked(member); ok { // with the join, in one frame
		d.outgoing.leave(Departure{Member: lost, Reason: leftReplaced})
		delete(d.roster.away, lost.ConnectionID) // its place is taken
	}
	d.awaited[c.id] = make(chan struct{})
	d.wakeLocked()
	// History may be ahead of the announcements; when they do not come they
	// are fetched.
	d.noteLocked(seen, soon)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.doc = d
	c.out.seen = seen
	c.out.opCursor = d.cursorAfterLocked(seen)
	// From before its own announcement on: the newcomer hears of itself, and
	// what the reply's list holds already is told again, in order.
	c.out.presCursor = d.presence.head.Load()
	c.out.lostPresence = false
	return d.awaited[c.id]
}

// arrivedLocked ends the wait for a connection's announcement.
func (d *document) arrivedLocked(id string) {
	if awaited := d.awaited[id]; awaited != nil {
		close(awaited)
		delete(d.awaited, id)
	}
}

// detach takes c out again and has the others told.
func (d *document) detach(c *conn, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outgoing.leave(Departure{Member: d.removeLocked(c), Reason: reason})
}

// removeLocked takes c out of the own members. It stays in the roster until
// everybody has been told what became of it.
func (d *document) removeLocked(c *conn) Member {
	member := d.members[c]
	delete(d.members, c)
	d.arrivedLocked(c.id)
	if _, known := d.roster.members[c.id]; !known { // its announcement is under way; some have been told of it in replies
		d.roster.members[c.id] = member
	}
	d.listing = nil
	d.wakeLocked()
	return member
}

// setState changes what c shows the others.
func (d *document) setState(c *conn, state []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if member, ok := d.members[c]; ok {
		member.State = state
		d.members[c] = member
		d.listing = nil
		d.outgoing.update(member)
		d.wakeLocked()
	}
}

// present returns the list of everybody present, encoded, for a reply to c:
// what changes afterwards waits for it in the ring. This replica's own members
// are in it although their announcement may still be under way. Those who join
// at once share one list.
func (d *document) present(c *conn) []byte {
	d.mu.Lock()
	c.mu.Lock()
	c.out.presCursor = d.presence.head.Load()
	c.out.lostPresence = false
	c.mu.Unlock()
	listing := d.listingLocked()
	d.mu.Unlock()
	return listing()
}

// everybody encodes who is present.
func (d *document) everybody() []byte {
	d.mu.Lock()
	listing := d.listingLocked()
	d.mu.Unlock()
	return listing()
}

// listingLocked makes the list once for all who ask before it changes.
func (d *document) listingLocked() func() []byte {
	if d.listing == nil {
		everybody := maps.Clone(d.roster.members)
		for own, member := range d.members {
			everybody[own.id] = member
		}
		list := sorted(everybody)
		d.listing = sync.OnceValue(func() []byte { return encode(entries(list)) })
	}
	return d.listing
}

// cursorAfterLocked returns where in the ring a reader of history up to seen
// goes on. Operations after it that the ring no longer has count as lost.
func (d *document) cursorAfterLocked(seen Position) uint64 {
	cursor := d.operations.head.Load()
	for tail := d.operations.tail.Load(); cursor > tail; cursor-- {
		f := d.operations.slot(cursor - 1).Load()
		if f.position.Epoch != seen.Epoch || f.position.Seq <= seen.Seq {
			return cursor
		}
	}
	if first := d.operations.slot(cursor).Load(); cursor > 0 && first != nil && first.position.Seq > seen.Seq+1 {
		return cursor - 1
	}
	return cursor
}

// errEpoch: the log began new lives faster than they could be read.
var errEpoch = errors.Join(ErrUnavailable, errors.New("the document's log keeps changing its epoch"))

// historyFor reads what a newcomer needs. History of another life of the log
// than the document follows is read again after the document has caught up:
// either could be the older one.
func (d *document) historyFor(ctx context.Context, since *Position) (History, error) {
	for range 3 {
		h, err := d.hub.cfg.Backplane.History(ctx, d.id, since, maxReplyBytes)
		if err != nil {
			return History{}, err
		}
		if h.Epoch == d.newest().Epoch {
			return h, nil
		}
		if err := d.catchUp(ctx); err != nil {
			return History{}, err
		}
		if h.Epoch == d.newest().Epoch {
			return h, nil
		}
	}
	return History{}, errEpoch
}
