package ws

import (
	"context"
	"time"
)

// needs is what a document has to do with Redis, besides announcing.
type needs struct {
	log     bool          // read the log: there is a gap
	late    time.Time     // read it at this time if the announcements have not come; zero: nothing is late
	members bool          // read the members
	done    chan struct{} // closed when the log has been read; nil: nobody waits for that
}

// How soon a position that was heard of must have arrived.
const (
	atOnce = time.Duration(0)
	soon   = 100 * time.Millisecond
)

// noteLocked takes note of a position in the log. When it is past what has
// arrived, the log is read: now, or if that is still so soon after.
func (d *document) noteLocked(at Position, when time.Duration) {
	if d.at.Epoch == "" { // open has not read the log
		d.known = at
		return
	}
	if at.Epoch == d.at.Epoch {
		if at.Seq <= d.at.Seq {
			return
		}
		if d.known.Epoch != at.Epoch || d.known.Seq < at.Seq {
			d.known = at
		}
	} else {
		when = atOnce
	}
	if when == atOnce {
		d.need.log = true
	} else if d.need.late.IsZero() {
		d.need.late = time.Now().Add(when)
	}
	d.wakeLocked()
}

// run does what the document needs from Redis, one thing at a time, until
// the document is stopped. What fails is tried again with a back-off.
func (d *document) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := presenceTick
	var announced, retry time.Time
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.work:
		case <-timer.C:
		}
		if wait := time.Until(retry); wait > 0 {
			timer.Reset(wait)
			continue
		}
		err := d.readMissed()
		if err == nil && d.announceIn(announced) == 0 {
			began := time.Now()
			var told bool
			if told, err = d.announce(d.ctx); told {
				announced = began
			}
		}
		if err != nil {
			retry = time.Now().Add(pause)
			timer.Reset(pause)
			pause = min(2*pause, 2*time.Second)
			continue
		}
		pause = presenceTick
		if wait, ok := d.idle(announced); ok {
			timer.Reset(wait)
		}
	}
}

// idle returns when run has to look again without being woken.
func (d *document) idle(announced time.Time) (wait time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch late := d.need.late; {
	case !d.outgoing.empty():
		return d.announceInLocked(announced), true
	case !late.IsZero():
		return max(0, time.Until(late)), true
	}
	return 0, false
}

// announceIn returns how long the announcement of own members' changes waits.
func (d *document) announceIn(announced time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.announceInLocked(announced)
}

// announceInLocked lets states wait for the tick, since only the newest
// counts. Who comes or goes does not wait: whoever joins next, anywhere, is
// told who is there. What changes during an announcement goes with the next.
func (d *document) announceInLocked(announced time.Time) time.Duration {
	if len(d.outgoing.joined)+len(d.outgoing.left) > 0 {
		return 0
	}
	return max(0, presenceTick-time.Since(announced))
}

// announce tells everybody what changed among the document's own members.
// told is false when nothing did.
func (d *document) announce(ctx context.Context) (told bool, err error) {
	d.mu.Lock()
	change := d.outgoing.take()
	d.mu.Unlock()
	if change.Empty() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err = d.hub.cfg.Backplane.Announce(ctx, d.id, change); err != nil {
		d.mu.Lock()
		d.outgoing.addEarlier(change)
		for _, m := range change.Joined {
			d.arrivedLocked(m.ConnectionID) // nobody waits for Redis to be back
		}
		d.mu.Unlock()
	}
	return true, err
}

// readMissed reads the log and the members where that is due.
func (d *document) readMissed() error {
	d.mu.Lock()
	if !d.need.late.IsZero() {
		if d.known == d.at {
			d.need.late = time.Time{}
		} else if !time.Now().Before(d.need.late) {
			d.need.log = true
		}
	}
	log, members := d.need.log, d.need.members
	d.need.log, d.need.members = false, false
	if log {
		d.need.late = time.Time{}
	}
	d.mu.Unlock()

	ctx, cancel := context.WithTimeout(d.ctx, callTimeout)
	defer cancel()
	var err error
	if log {
		err = d.repair(ctx)
	}
	if members && err == nil {
		err = d.readMembers(ctx)
		members = err != nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.need.members = d.need.members || members
	switch {
	case log && err == nil && d.need.done != nil:
		close(d.need.done)
		d.need.done = nil
	case log && err != nil:
		d.need.log = true
	}
	return err
}

// repair reads the log from where the ring ends and delivers what is missing.
func (d *document) repair(ctx context.Context) error {
	for more := true; more; {
		d.mu.Lock()
		since := d.at
		d.mu.Unlock()
		d.hub.metrics.repairs.Inc()
		h, err := d.hub.cfg.Backplane.History(ctx, d.id, &since, maxReplyBytes)
		if err != nil {
			return err
		}
		more = d.absorb(h)
	}
	return nil
}

// absorb delivers history that was read from the ring's end, and reports
// whether there is more to read.
func (d *document) absorb(h History) (more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.Epoch != d.at.Epoch {
		// A new life of the log: members start over by themselves.
		d.hub.log.Warn("a document's log began a new epoch", "document", d.id)
		d.restartLocked(Position{h.Epoch, h.Head}, 0)
		d.wakeMembersLocked()
		return false
	}
	if len(h.Entries) > 0 && h.Entries[0].Seq > d.at.Seq+1 {
		first := h.Entries[0].Seq
		d.restartLocked(Position{h.Epoch, first - 1}, first-1-d.at.Seq)
	}
	before := d.at
	for _, e := range h.Entries {
		if e.Seq == d.at.Seq+1 {
			d.pushLocked(Position{h.Epoch, e.Seq}, e.Frame)
		}
	}
	if h.Head <= d.at.Seq && d.known.Epoch == h.Epoch && d.known.Seq > h.Head {
		// The log is behind what it acknowledged. Keeping the position in
		// mind makes the next Append begin a new epoch.
		d.need.late = time.Time{}
	}
	d.wakeMembersLocked()
	return h.More && d.at != before
}

// catchUp has the log read and waits for that.
func (d *document) catchUp(ctx context.Context) error {
	d.mu.Lock()
	d.need.log = true
	if d.need.done == nil {
		d.need.done = make(chan struct{})
	}
	done := d.need.done
	d.wakeLocked()
	d.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ErrUnavailable
	}
}

// readMembers reads who is present and has the difference broadcast. Changes
// that are announced meanwhile are newer than what is read.
func (d *document) readMembers(ctx context.Context) error {
	d.mu.Lock()
	d.during = new(merge)
	d.mu.Unlock()
	members, err := d.hub.cfg.Backplane.Members(ctx, d.id)

	d.mu.Lock()
	defer d.mu.Unlock()
	during := d.during.take()
	d.during = nil
	if err == nil {
		// Own members are there whatever Redis has kept; the backplane puts
		// them back.
		for c := range d.members {
			if m, ok := d.roster.members[c.id]; ok {
				members = append(members, m)
			}
		}
		for id := range d.absent {
			if m, ok := d.roster.members[id]; ok {
				members = append(members, m)
			}
		}
		d.presenceLocked(d.roster.differs(members))
	}
	d.presenceLocked(during)
	return err
}

// sleep waits for d, or less when ctx ends, which it reports as false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
