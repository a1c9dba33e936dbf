package ws

import (
	"maps"
	"slices"
	"time"
)

// absent is an own member whose connection was lost. Others are told that it
// left when nobody has taken its place within Documents.PresenceGrace. Until
// then it holds the document open.
type absent struct {
	member Member
	timer  *time.Timer
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

// excuse marks a member as lost instead of telling that it left.
func (d *document) excuse(c *conn) {
	grace := d.hub.cfg.Documents.PresenceGrace
	d.hub.absences.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	member := d.removeLocked(c)
	member.Away = true
	d.roster.put(member)
	d.outgoing.update(member)
	id := member.ConnectionID
	d.absent[id] = absent{member, time.AfterFunc(grace, func() { d.give(id) })}
}

// give ends the wait for an absent member.
func (d *document) give(id string) {
	d.mu.Lock()
	a, ok := d.absent[id]
	if ok {
		delete(d.absent, id)
		d.outgoing.leave(Departure{Member: a.member, Reason: leftClosed})
		d.wakeLocked()
	}
	d.mu.Unlock()
	if ok {
		d.forget(1)
	}
}

// giveAll ends the wait for every absent member.
func (d *document) giveAll() {
	d.mu.Lock()
	ids := slices.Collect(maps.Keys(d.absent))
	d.mu.Unlock()
	for _, id := range ids {
		d.give(id)
	}
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
// and returns how many they were; forget is to be called with that.
func (d *document) replacedLocked(left []Departure) (count int) {
	for _, m := range left {
		if a, ok := d.absent[m.ConnectionID]; ok {
			a.timer.Stop()
			delete(d.absent, m.ConnectionID)
			count++
		}
	}
	return count
}

// forget gives back what count absent members held.
func (d *document) forget(count int) {
	for range count {
		d.hub.release(d)
		d.hub.absences.Done()
	}
}
