package sessionstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// Save stores what this copy changed, merged into what others stored since;
// without changes it does nothing. Of an attribute that both changed this
// copy's value counts: see [Factory.Update] where it must follow from the
// other's. Afterwards the copy shows the merged state.
//
// A new session is created, under a new random ID. Any other is never
// created: a session that ended or expired meanwhile is an *EndedError or
// ErrNotFound. ErrTooLarge, ErrValue: nothing was written.
func (s *Session) Save(ctx context.Context) error {
	if s.IsNew() {
		return s.create(ctx, nil)
	}
	if len(s.changes) == 0 {
		return nil
	}
	defer s.f.lanes.enter(ctx, s.ref)()
	return s.write(ctx, nil)
}

// write saves the pending changes by compare-and-set. On a conflict they are
// made again on the newest state: by redo, or as they are when it is nil.
func (s *Session) write(ctx context.Context, redo func(*Session) error) error {
	for conflicts := 1; len(s.changes) > 0; conflicts++ {
		err := s.swap(ctx, "")
		var stale *conflictError
		switch {
		case err == nil:
			s.f.metrics.saved(nil)
			s.reindex(ctx)
			return nil
		case !errors.As(err, &stale):
			s.f.metrics.saved(err)
			return err
		}
		s.f.metrics.conflicts.Inc()
		if err := pause(ctx, conflicts); err != nil {
			return err
		}
		if redo != nil {
			s.changes = nil
		}
		if err := s.rebase(stale.held); err != nil {
			return err
		}
		if redo != nil {
			if err := redo(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// conflictError brings what somebody else stored meanwhile.
type conflictError struct{ held string }

func (*conflictError) Error() string { return "sessionstore: somebody else wrote" }

// givenError brings the mark that the ID was given before.
type givenError struct{ mark string }

func (*givenError) Error() string { return "sessionstore: the ID has a handle" }

// swap makes one attempt to replace the bytes this copy is based on by the
// merged ones, under the ID that the session has now. With a mark it gives
// the ID its handle.
//
// Its error may be a *conflictError; with a mark also a *givenError, or
// errReread when the ID has ended.
func (s *Session) swap(ctx context.Context, mark string) error {
	f := s.f
	for range maxHops {
		raw, err := s.merged()
		if err != nil {
			return err
		}
		if err := s.checkSize(raw); err != nil && mark == "" {
			return err
		}
		held := f.seal(raw, s.ref)
		r, err := f.run(ctx, saveScript,
			[]string{f.valueKey(s.ref), f.endKey(s.ref), f.wroteKey(s.ref, rand.Text()), f.sidKey(s.ref), f.holdKey(s.ref)},
			s.held, held, ms(wroteTTL), announcement(newsChanged, s.handle), mark, ms(f.cfg.IdleTimeout))
		if err != nil {
			return err
		}
		switch r.outcome {
		case done:
			return s.accept(raw, held)
		case conflict:
			return &conflictError{r.detail}
		case given:
			return &givenError{r.detail}
		case absent:
			return ErrNotFound
		case ended:
			if mark != "" {
				return errReread
			}
			// The save goes to the new ID; what is there is another value,
			// so that it comes back as a conflict, to be merged with.
			heir, err := f.heirOf(ctx, s.place, tombstone(r.detail), s.by)
			if err != nil {
				return err
			}
			s.place, s.renewed = heir, true
		default:
			return r.unexpected("save")
		}
	}
	return ErrNotFound
}

// checkSize refuses what would be too large, but for a step towards less.
func (s *Session) checkSize(raw string) error {
	limit := s.f.cfg.MaxBytes
	if limit > 0 && len(raw) > limit && len(raw) >= len(s.raw) {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, len(raw), limit)
	}
	return nil
}

// accept makes raw, which was written as held, the state of this copy.
func (s *Session) accept(raw, held string) error {
	s.changes = nil
	return s.show(raw, held)
}

// rebase makes held, which is stored at the session's place, the state that
// the pending changes are on. Those that it fulfils already are dropped;
// should a blind write have dropped the session's handle, it is put back with
// the next save.
func (s *Session) rebase(held string) error {
	raw, err := s.f.open(held, s.ref)
	if err != nil {
		return err
	}
	return s.show(raw, held)
}

// show is rebase for what is opened already.
func (s *Session) show(raw, held string) error {
	attrs, err := s.f.codec.decode(raw)
	if err != nil {
		return err
	}
	s.held, s.raw, s.attrs = held, raw, attrs
	for k, c := range s.changes {
		stored, ok := attrs.find(k)
		if !ok && c.deleted || ok && !c.deleted && s.f.codec.equal(stored, c) {
			delete(s.changes, k)
		}
	}
	handle, created := s.handle, s.created
	s.handle, s.created = s.identity()
	if !s.identified() && handle != "" {
		return s.identify(handle, created)
	}
	return nil
}

// maxSkew is how far ahead the clock of who made a session may be. A creation
// beyond that is a mistake, or a way around the end: it counts as none.
const maxSkew = time.Minute

// identity reads handle and creation from the attributes, empty where they
// are missing or no such things.
func (s *Session) identity() (handle string, created time.Time) {
	handle = s.text(attrHandle)
	if !ValidHandle(handle) {
		handle = ""
	}
	created, _ = time.Parse(time.RFC3339, s.text(attrCreated)) // zero on error
	if ofFuture(created) {
		created = time.Time{}
	}
	return handle, created
}

func ofFuture(created time.Time) bool { return created.After(time.Now().Add(maxSkew)) }

// identified reports whether the session has its handle and creation.
func (s *stored) identified() bool { return s.handle != "" && !s.created.IsZero() }

// identify gives this copy a handle and a creation, to be saved.
func (s *Session) identify(handle string, created time.Time) error {
	s.handle, s.created = handle, created.Truncate(time.Millisecond)
	return errors.Join(s.set(named(attrHandle), handle), s.set(named(attrCreated), formatTime(created)))
}

// adopt gives a session of an application that knows nothing of Tandem its
// handle and creation: those that it had before, if a blind write has
// dropped them, and the same ones on all replicas that adopt it at a time.
// errReread: it has ended, or has another ID.
func (s *Session) adopt(ctx context.Context) error {
	handle, created := s.handle, s.created
	if handle == "" {
		handle = NewHandle()
	}
	if created.IsZero() {
		created = time.Now()
	}
	for conflicts := 1; ; conflicts++ {
		if err := s.identify(handle, created); err != nil {
			return err
		}
		err := s.swap(ctx, mark(handle, created))
		var stale *conflictError
		var had *givenError
		switch {
		case err == nil:
			s.f.metrics.adopted.Inc()
			s.f.indexed.forget(s.handle) // what it says may be wrong now
			s.f.log.InfoContext(ctx, "session adopted", "session", s.handle, "user", s.UserID())
			return nil
		case errors.As(err, &had):
			if handle, created, err = parseMark(had.mark); err != nil {
				return err
			}
			s.changes = nil
			if ofFuture(created) { // by a replica whose clock was wrong
				created = time.Now()
				if err := s.f.rdb.Del(ctx, s.f.sidKey(s.ref)).Err(); err != nil {
					return storeError(err)
				}
			}
		case errors.As(err, &stale):
			s.changes, s.handle, s.created = nil, "", time.Time{}
			if err := s.rebase(stale.held); err != nil || s.identified() {
				return err // another replica was quicker
			}
		default:
			return err
		}
		if err := pause(ctx, conflicts); err != nil {
			return err
		}
	}
}

// create stores a new session. login may be nil.
func (s *Session) create(ctx context.Context, login *Login) error {
	err := s.tryCreate(ctx)
	s.f.metrics.saved(err)
	if err != nil {
		return err
	}
	s.f.log.InfoContext(ctx, "session created", "session", s.handle, "user", s.UserID())
	s.f.indexAfter(ctx, s, login)
	return nil
}

func (s *Session) tryCreate(ctx context.Context) error {
	if !s.identified() {
		created := s.created // a login has set it
		if created.IsZero() {
			created = time.Now()
		}
		if err := s.identify(NewHandle(), created); err != nil {
			return err
		}
	}
	raw, err := s.merged()
	if err != nil {
		return err
	}
	if err := s.checkSize(raw); err != nil {
		return err
	}
	return s.createAt(ctx, s.f.placeOf(NewID()), raw, s.f.cfg.IdleTimeout)
}

// createAt stores raw, which is what this copy shows, as a value of its own,
// for ttl at most.
func (s *Session) createAt(ctx context.Context, at place, raw string, ttl time.Duration) error {
	f := s.f
	ttl = min(ttl, f.remaining(&s.stored, time.Now()))
	held := f.seal(raw, at.ref)
	r, err := f.run(ctx, createScript,
		[]string{f.valueKey(at.ref), f.endKey(at.ref), f.sidKey(at.ref), f.wroteKey(at.ref, rand.Text())},
		held, ms(ttl), mark(s.handle, s.created), ms(wroteTTL))
	switch {
	case err != nil:
		return err
	case r.outcome != done:
		return r.unexpected("create")
	}
	s.place, s.idleEnd = at, time.Now().Add(ttl)
	return s.accept(raw, held)
}
