package sessionstore

import (
	"slices"
	"time"
)

// entry is one bound session of this replica, shared by its bindings. All
// fields but the first two are guarded by Watcher.mu.
type entry struct {
	w      *Watcher // fixed
	handle string   // fixed: survives rotation of the ID

	snapshot *Snapshot // newest state known; it knows the session's ID
	version  uint64    // counts replacements of snapshot: a state read before one is not newer
	verified time.Time // when Redis last confirmed that the session lives
	bindings []*Binding
	over     bool // ended or without bindings: no longer in Watcher.entries
	last     last // how it ended, if it did

	refreshing bool        // waits in work.refresh
	touching   bool        // waits in work.touch
	warned     time.Time   // the end of which the listeners were warned
	timer      *time.Timer // next warning or end
}

// refreshLocked has e loaded again soon.
func (w *Watcher) refreshLocked(e *entry) {
	if e.over || e.refreshing {
		return
	}
	e.refreshing = true
	w.queue.refresh = append(w.queue.refresh, e)
	signal(w.wake)
}

// touchLocked has e's life extended soon, if enough of it has gone.
func (w *Watcher) touchLocked(e *entry, now time.Time) {
	left := e.snapshot.idleEnd.Sub(now)
	if e.over || e.touching || !w.factory.touchDue(&stored{created: e.snapshot.created}, left, now) {
		return
	}
	e.touching = true
	w.queue.touch = append(w.queue.touch, e)
	signal(w.wake)
}

// replaceLocked makes s the newest state of e and tells the bindings.
func (w *Watcher) replaceLocked(e *entry, s *Snapshot, now time.Time) {
	old := e.snapshot
	e.snapshot, e.verified = s, now
	e.version++
	w.armLocked(e, now)
	w.heard.note(e.handle)
	changed := w.worthTelling(old, s)
	for _, b := range e.bindings {
		if old.needsOtherCookie(s) {
			b.rotated = true
		}
		if changed {
			b.changed = s
		}
		w.readyLocked(b)
	}
}

// needsOtherCookie reports whether the client's cookie must be set again when
// old became s: for the ID in it or for its age.
func (old *Snapshot) needsOtherCookie(s *Snapshot) bool {
	return old.ref != s.ref || old.remembered != s.remembered || s.remembered && !old.expires.Equal(s.expires)
}

// worthTelling reports whether the listeners want to know that old became s.
func (w *Watcher) worthTelling(old, s *Snapshot) bool {
	if old.UserID() != s.UserID() || old.UserName() != s.UserName() {
		return true
	}
	set, deleted := Diff(old.Readable(w.cfg.Readable), s.Readable(w.cfg.Readable))
	return len(set)+len(deleted) > 0
}

// endLocked ends every binding of e for this reason and forgets e.
func (w *Watcher) endLocked(e *entry, why Reason) {
	if e.over {
		return
	}
	w.metrics.closes.WithLabelValues(string(why)).Add(float64(len(e.bindings)))
	w.finishLocked(e, last{ended: why})
}

// unverifiedLocked ends every binding of e because nothing is known of it.
func (w *Watcher) unverifiedLocked(e *entry) {
	if e.over {
		return
	}
	w.metrics.closes.WithLabelValues(closeUnverified).Add(float64(len(e.bindings)))
	w.finishLocked(e, last{unverified: true})
}

func (w *Watcher) finishLocked(e *entry, call last) {
	for _, b := range e.bindings {
		b.last = call
		w.readyLocked(b)
	}
	e.bindings, e.last = nil, call
	w.forgetLocked(e)
}

func (w *Watcher) forgetLocked(e *entry) {
	e.over = true
	e.timer.Stop()
	delete(w.entries, e.handle)
	w.metrics.bound.Set(float64(len(w.entries)))
}

// readyLocked puts b into the deliverer's list if it has calls to deliver.
func (w *Watcher) readyLocked(b *Binding) {
	if b.closed || b.ready || b.calls == (calls{}) {
		return
	}
	b.ready = true
	w.ready = append(w.ready, b)
	signal(w.mail)
}

// endsAt is when the session ends if nothing extends it.
func (e *entry) endsAt() time.Time {
	idle, absolute := e.snapshot.IdleExpiresAt(), e.snapshot.ExpiresAt()
	if absolute.Before(idle) {
		return absolute
	}
	return idle
}

// armLocked sets the timer to e's next moment: first the warning, then the
// end. Both are only occasions to load the session again, since another
// replica may have extended its life.
func (w *Watcher) armLocked(e *entry, now time.Time) {
	end := e.endsAt()
	next := end.Add(-w.warnAhead())
	if w.warnedOf(e, end) || !next.After(now) {
		next = end
	}
	e.timer.Reset(max(next.Sub(now), minimumWait))
}

// minimumWait keeps a session that Redis holds past its end for a moment
// from being loaded in a tight loop.
const minimumWait = 20 * time.Millisecond

// warnAhead is how long before its end a session's listeners are warned.
func (w *Watcher) warnAhead() time.Duration {
	return min(time.Minute, w.factory.cfg.IdleTimeout/10)
}

// warnLocked tells the bindings that the end is near, once for each end.
func (w *Watcher) warnLocked(e *entry, now time.Time) {
	end := e.endsAt()
	if left := end.Sub(now); left <= w.warnAhead() && left > 0 && !w.warnedOf(e, end) {
		e.warned = end
		for _, b := range e.bindings {
			b.expiring = left
			w.readyLocked(b)
		}
	}
}

// warnedOf reports whether this end was announced. Redis tells it to the
// millisecond of the reading, activity moves it by more than the warning.
func (w *Watcher) warnedOf(e *entry, end time.Time) bool {
	return end.Sub(e.warned) < w.warnAhead()
}

// unbindLocked takes b out of e, and e out of the watcher with its last.
func (w *Watcher) unbindLocked(e *entry, b *Binding) {
	if e.over {
		return
	}
	if i := slices.Index(e.bindings, b); i >= 0 {
		e.bindings = slices.Delete(e.bindings, i, i+1)
	}
	if len(e.bindings) == 0 {
		w.forgetLocked(e)
	}
}
