package sessionstore

import (
	"context"
	"errors"
	"time"
)

// Binding ties a listener to a session until the session ends or Close. Its
// methods are safe for concurrent use.
type Binding struct {
	w        *Watcher // fixed
	entry    *entry   // fixed
	listener Listener // fixed

	// Guarded by Watcher.mu.
	closed bool // no further call
	ready  bool // in Watcher.ready
	calls
}

// calls are what a binding's listener is still to be told. States that were
// not delivered yet give way to newer ones, so that they never pile up.
type calls struct {
	changed  *Snapshot
	rotated  bool
	expiring time.Duration
	last     last
}

// last is the call after which there is none.
type last struct {
	ended      Reason
	unverified bool
}

// errUnbound answers the use of a binding after Close.
var errUnbound = errors.New("sessionstore: binding is closed")

// Bind ties l to the session that this ID names, also an ID that rotation
// replaced within the grace. It returns the session's state, from which on l
// hears of everything: an end or change that happens while Bind runs is not
// missed. Errors are those of [Factory.Load].
func (w *Watcher) Bind(ctx context.Context, id string, l Listener) (*Binding, *Snapshot, error) {
	w.mu.Lock()
	before := w.heard.count
	w.mu.Unlock()

	s, err := w.factory.Load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	b, snapshot := w.bind(s.Snapshot(), before, l)
	return b, snapshot, nil
}

// bind registers l for the session read as s. What was heard of it since
// before may be newer than s: then s is read again, now that the binding
// cannot miss anything more.
func (w *Watcher) bind(s *Snapshot, before uint64, l Listener) (*Binding, *Snapshot) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	missed := w.heard.since(before, s.Handle())
	e := w.entries[s.Handle()]
	switch {
	case e == nil:
		e = &entry{w: w, handle: s.Handle(), snapshot: s, verified: now}
		e.timer = time.AfterFunc(time.Hour, e.due)
		w.entries[e.handle] = e
		w.armLocked(e, now)
		w.metrics.bound.Set(float64(len(w.entries)))
	case !missed:
		w.replaceLocked(e, s, now)
	}
	b := &Binding{w: w, entry: e, listener: l}
	e.bindings = append(e.bindings, b)
	if missed {
		w.refreshLocked(e)
	}
	return b, e.snapshot
}

// Snapshot returns the newest state this replica knows, also after the end.
func (b *Binding) Snapshot() *Snapshot {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	return b.entry.snapshot
}

// Touch records activity of the client, which extends the session's idle
// lifetime by at most one write per [Config].TouchEvery. It never blocks.
func (b *Binding) Touch() {
	now := time.Now()
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if !b.closed {
		b.w.touchLocked(b.entry, now)
	}
}

// Update is [Factory.Update] on the bound session, under whatever ID it has
// by now. The state it saved is told to every binding, this one too. For a
// session that Redis no longer has the error is an *EndedError, too: expired
// when that was due, else gone.
func (b *Binding) Update(ctx context.Context, fn func(*Session) error) (*Snapshot, error) {
	w, e := b.w, b.entry
	w.mu.Lock()
	ref, version, err := e.snapshot.ref, e.version, b.usableLocked()
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}

	s, err := w.factory.updateFollowing(ctx, ref, fn)

	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.learnLocked(e, err)
		if errors.Is(err, ErrNotFound) && e.last.ended != "" {
			err = &EndedError{Reason: e.last.ended} // Redis has forgotten it; when that was due is known here
		}
		return nil, err
	}
	saved := s.Snapshot()
	switch {
	case e.over:
	case e.version == version:
		w.replaceLocked(e, saved, now)
	default: // somebody else's state came in between; which one is newer Redis knows
		w.refreshLocked(e)
	}
	return saved, nil
}

// Close ends the binding without a further call to the listener; one that is
// under way in another goroutine may still be finishing. Closing twice is
// harmless.
func (b *Binding) Close() {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.w.unbindLocked(b.entry, b)
	}
}

// usableLocked is nil, or says why the session cannot be written any more.
func (b *Binding) usableLocked() error {
	switch {
	case b.entry.last.unverified:
		return ErrUnavailable
	case b.entry.last.ended != "":
		return &EndedError{Reason: b.entry.last.ended}
	case b.closed:
		return errUnbound
	}
	return nil
}

// deliver makes the calls that wait, one after the other, until ctx ends.
func (w *Watcher) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.mail:
		}
		w.mu.Lock()
		ready := w.ready
		w.ready = nil
		w.mu.Unlock()
		for _, b := range ready {
			b.deliver()
		}
	}
}

// deliver tells b's listener all that waits for it.
func (b *Binding) deliver() {
	b.w.mu.Lock()
	c, closed := b.calls, b.closed
	b.calls, b.ready = calls{}, false
	b.closed = closed || c.last != (last{})
	b.w.mu.Unlock()

	if closed {
		return
	}
	if c.rotated {
		b.listener.SessionRotated()
	}
	if c.changed != nil {
		b.listener.SessionChanged(c.changed)
	}
	if c.expiring > 0 {
		b.listener.SessionExpiring(c.expiring)
	}
	switch {
	case c.last.unverified:
		b.listener.SessionUnverified()
	case c.last.ended != "":
		b.listener.SessionEnded(c.last.ended)
	}
}
