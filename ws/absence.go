package ws

import (
	"maps"
	"slices"
	"time"
)

// absent is an own member whose connection was lost. Others are told that it
// left when nobody has taken its place within Documents.PresenceGrace, or when
// its session ends before. Until then it holds the document open, and the
// session's binding.
type absent struct {
	member  Member
	timer   *time.Timer
	binding Binding
}

// returns reports whether a client that was closed like this is likely to be
// back soon: its connection broke, its page is being loaded again, or it was
// told to come back.
func (c *conn) returns(why closing) bool {
	switch why {
	case closeLost, closeStuck, closeByReload, closeRestart:
		return true
	case closeByPeer:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.bye != nil // it does as told
	}
	return false
}

// excuse marks a member as lost instead of telling that it left. It takes over
// the connection's binding.
func (d *document) excuse(c *conn) {
	d.hub.absences.Add(1)
	d.awaitReturn(c)
	c.mu.Lock()
	c.missedBy = d
	over := c.over
	c.mu.Unlock()
	if over { // since a moment ago, when nobody missed it
		d.give(c.id, leftSession)
	}
}

func (d *document) awaitReturn(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	member := d.removeLocked(c)
	member.Away = true
	d.roster.put(member)
	d.outgoing.update(member)
	id := member.ConnectionID
	timer := time.AfterFunc(d.hub.cfg.Documents.PresenceGrace, func() { d.give(id, leftClosed) })
	d.absent[id] = absent{member, timer, c.binding}
	c.binding = nil
}

// sessionOver has the others told at once that the connection has left, if it
// is one whose return is waited for: its session has ended.
func (c *conn) sessionOver() {
	c.mu.Lock()
	c.over = true
	d := c.missedBy
	c.mu.Unlock()
	if d != nil {
		d.give(c.id, leftSession)
	}
}

// give ends the wait for an absent member.
func (d *document) give(id, reason string) {
	d.mu.Lock()
	a, ok := d.absent[id]
	if ok {
		a.timer.Stop()
		delete(d.absent, id)
		d.outgoing.leave(Departure{Member: a.member, Reason: reason})
		d.wakeLocked()
	}
	d.mu.Unlock()
	if ok {
		d.forget([]absent{a})
	}
}

// bequeath leaves every absent member to the other replicas: this one stops,
// and whoever it sent off is about to come back to one of them. The backplane
// has those who do not taken for dead with this replica.
func (d *document) bequeath() {
	d.mu.Lock()
	absents := slices.Collect(maps.Values(d.absent))
	clear(d.absent)
	d.mu.Unlock()
	for _, a := range absents {
		a.timer.Stop()
	}
	d.forget(absents)
}

// placeOfLocked returns the lost member whose place a newcomer takes: one of
// the same session and user, whichever replica it was on.
func (d *document) placeOfLocked(newcomer Member) (lost Member, ok bool) {
	for id, m := range d.roster.away {
		if m.Session == newcomer.Session && m.UserID == newcomer.UserID && (!ok || id < lost.ConnectionID) {
			lost, ok = m, true
		}
	}
	return lost, ok
}

// replacedLocked forgets absent members that others have said to have left,
// and returns them; forget is to be called with that.
func (d *document) replacedLocked(left []Departure) (replaced []absent) {
	for _, m := range left {
		if a, ok := d.absent[m.ConnectionID]; ok {
			a.timer.Stop()
			delete(d.absent, m.ConnectionID)
			replaced = append(replaced, a)
		}
	}
	return replaced
}

// forget gives back what absent members held.
func (d *document) forget(members []absent) {
	for _, a := range members {
		a.binding.Close()
		d.hub.release(d)
		d.hub.absences.Done()
	}
}
