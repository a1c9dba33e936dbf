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
		return s.create(ctx)
	}
	return s.write(ctx, presented, nil)
}

// write saves the pending changes by compare-and-set. On a conflict they are
// made again on the newest state: by redo, or as they are when it is nil.
func (s *Session) write(ctx context.Context, by claim, redo func(*Session) error) error {
	for len(s.changes) > 0 {
		err := s.swap(ctx, by, "")
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
		if redo != nil {
			s.changes = nil
		}
		if err := s.rebase(stale.current); err != nil {
			return err
		}
		if redo != nil {
			if err := redo(s); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return storeError(err)
		}
	}
	return nil
}

// conflictError brings the bytes that somebody else stored meanwhile.
type conflictError struct{ current []byte }

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
func (s *Session) swap(ctx context.Context, by claim, mark string) error {
	f := s.f
	for range maxHops {
		raw, err := s.merged()
		if err != nil {
			return err
		}
		if err := s.checkSize(raw); err != nil && mark == "" {
			return err
		}
		r, err := f.run(ctx, saveScript,
			[]string{f.valueKey(s.id), f.endKey(s.id), f.wroteKey(s.id, rand.Text()), f.sidKey(s.id)},
			s.raw, raw, ms(wroteTTL), announcement(newsChanged, s.handle), mark, ms(f.cfg.IdleTimeout))
		if err != nil {
			return err
		}
		switch r.outcome {
		case done:
			return s.accept(raw)
		case conflict:
			return &conflictError{[]byte(r.detail)}
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
			heir, err := f.heirOf(ctx, s.id, tombstone(r.detail), by)
			if err != nil {
				return err
			}
			s.id, s.renewed = heir, true
		default:
			return r.unexpected("save")
		}
	}
	return ErrNotFound
}

// checkSize refuses what would be too large, but for a step towards less.
func (s *Session) checkSize(raw []byte) error {
	limit := s.f.cfg.MaxBytes
	if limit > 0 && len(raw) > limit && len(raw) >= len(s.raw) {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, len(raw), limit)
	}
	return nil
}

// accept makes raw, which was written, the state of this copy.
func (s *Session) accept(raw []byte) error {
	s.changes = nil
	return s.rebase(raw)
}

// rebase makes raw the stored state that the pending changes are on. Those
// that it fulfils already are dropped; should a blind write have dropped the
// session's handle, it is put back with the next save.
func (s *Session) rebase(raw []byte) error {
	attrs, err := s.f.codec.decode(raw)
	if err != nil {
		return err
	}
	s.raw, s.attrs = raw, attrs
	for key, cell := range s.changes {
		stored, ok := attrs.find(key)
		if !ok && isDeleted(cell) || ok && !isDeleted(cell) && s.f.codec.equal(stored, cell) {
			delete(s.changes, key)
		}
	}
	handle, created := s.handle, s.created
	s.handle, s.created = s.identity()
	if !s.identified() && handle != "" {
		return s.identify(handle, created)
	}
	return nil
}

// identity reads handle and creation from the attributes, empty where they
// are missing or no such things.
func (s *Session) identity() (handle string, created time.Time) {
	handle = s.text(attrHandle)
	if !ValidHandle(handle) {
		handle = ""
	}
	created, _ = time.Parse(time.RFC3339, s.text(attrCreated)) // zero on error
	return handle, created
}

// identified reports whether the session has its handle and creation.
func (s *stored) identified() bool { return s.handle != "" && !s.created.IsZero() }

// identify gives this copy a handle and a creation, to be saved.
func (s *Session) identify(handle string, created time.Time) error {
	s.handle, s.created = handle, created.Truncate(time.Millisecond)
	return errors.Join(s.set(attrHandle, handle), s.set(attrCreated, formatTime(created)))
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
	for {
		if err := s.identify(handle, created); err != nil {
			return err
		}
		err := s.swap(ctx, presented, mark(handle, created))
		var stale *conflictError
		var had *givenError
		switch {
		case err == nil:
			s.f.metrics.adopted.Inc()
			s.f.log.InfoContext(ctx, "session adopted", "session", s.handle, "user", s.UserID())
			return nil
		case errors.As(err, &had):
			if handle, created, err = parseMark(had.mark); err != nil {
				return err
			}
			s.changes = nil
		case errors.As(err, &stale):
			s.changes, s.handle, s.created = nil, "", time.Time{}
			if err := s.rebase(stale.current); err != nil || s.identified() {
				return err // another replica was quicker
			}
		default:
			return err
		}
		if err := ctx.Err(); err != nil {
			return storeError(err)
		}
	}
}

// create stores a new session.
func (s *Session) create(ctx context.Context) error {
	err := s.tryCreate(ctx)
	s.f.metrics.saved(err)
	if err != nil {
		return err
	}
	s.f.log.InfoContext(ctx, "session created", "session", s.handle, "user", s.UserID())
	s.f.index(ctx, s)
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
	return s.createAs(ctx, NewID(), raw, s.f.cfg.IdleTimeout)
}

// createAs stores raw, which is what this copy shows, as a value of its own,
// for ttl at most.
func (s *Session) createAs(ctx context.Context, id string, raw []byte, ttl time.Duration) error {
	f := s.f
	ttl = min(ttl, f.remaining(&s.stored, time.Now()))
	r, err := f.run(ctx, createScript,
		[]string{f.valueKey(id), f.endKey(id), f.sidKey(id), f.wroteKey(id, rand.Text())},
		raw, ms(ttl), mark(s.handle, s.created), ms(wroteTTL))
	switch {
	case err != nil:
		return err
	case r.outcome != done:
		return r.unexpected("create")
	}
	s.id, s.idleEnd = id, time.Now().Add(ttl)
	return s.accept(raw)
}
