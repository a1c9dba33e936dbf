package sessionstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Destroy ends the session, like [Factory.End]. A new one that was not saved
// is left as it is.
func (s *Session) Destroy(ctx context.Context, reason Reason) error {
	if s.IsNew() {
		return nil
	}
	if err := checkReason(reason); err != nil {
		return err
	}
	return s.f.end(ctx, s.ref, s.handle, reason)
}

// End ends the session that has or had this ID, whatever its ID is now: its
// value is deleted, nobody can bring it back, and everybody bound to it is
// told the reason (logout, revoked or expired). Ending a session again does
// nothing. ErrNotFound: there was none.
func (f *Factory) End(ctx context.Context, id string, reason Reason) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	if !ValidID(id) {
		return ErrNotFound
	}
	return f.end(ctx, f.placeOf(id).ref, "", reason)
}

// EndHandle ends the session that has this handle, like End.
func (f *Factory) EndHandle(ctx context.Context, handle string, reason Reason) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	r, err := f.refOf(ctx, handle)
	if err != nil {
		return err
	}
	return f.end(ctx, r, handle, reason)
}

// EndUser ends the sessions of a user, but for the one with exceptHandle, and
// returns how many there were. On an error the others have been ended all
// the same.
func (f *Factory) EndUser(ctx context.Context, userID string, reason Reason, exceptHandle string) (int, error) {
	if err := checkReason(reason); err != nil {
		return 0, err
	}
	handles, err := f.handlesOf(ctx, userID)
	if err != nil {
		return 0, err
	}
	count := 0
	var errs []error
	for _, handle := range handles {
		if handle == exceptHandle {
			continue
		}
		// The index may be late: an application may have logged another
		// user in. What cannot be decoded is ended on the index's word.
		s, err := f.LoadHandle(ctx, handle)
		if err == nil && s.UserID() != userID {
			f.index(ctx, s)
			continue
		}
		if err == nil || errors.Is(err, ErrUndecodable) {
			err = f.EndHandle(ctx, handle, reason)
		}
		switch {
		case err == nil:
			count++
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrEnded):
			f.forget(ctx, handle, userID)
		default:
			errs = append(errs, err)
		}
	}
	return count, errors.Join(errs...)
}

func checkReason(reason Reason) error {
	switch reason {
	case ReasonLogout, ReasonRevoked, ReasonExpired:
		return nil
	default:
		return fmt.Errorf("sessionstore: no session is ended for the reason %q", string(reason))
	}
}

// end ends the session where it is now. handle may be empty.
func (f *Factory) end(ctx context.Context, at ref, handle string, reason Reason) error {
	for range maxHops {
		r, err := f.run(ctx, endScript, []string{f.valueKey(at), f.endKey(at), f.sidKey(at)},
			string(reason), ms(f.cfg.AbsoluteTimeout), handle)
		if err != nil {
			return err
		}
		switch r.outcome {
		case ended:
			heir, ok := tombstone(r.detail).heir()
			if !ok {
				return nil
			}
			at = heir
		case absent:
			f.forget(ctx, r.detail, "")
			return ErrNotFound
		case done:
			f.ended(ctx, at, r, reason)
			return nil
		default:
			return r.unexpected("end")
		}
	}
	return ErrNotFound
}

// ended is what follows on the end of a session. It is late, not lost, when
// it fails: listing drops what has no session.
func (f *Factory) ended(ctx context.Context, at ref, r reply, reason Reason) {
	ctx, cancel := detached(ctx)
	defer cancel()
	s := &Session{f: f, stored: stored{place: f.placeAt(at)}}
	if err := s.rebase(r.more); err != nil {
		f.log.WarnContext(ctx, "ended a session that cannot be decoded", "session", r.detail, "err", err)
	}
	handle := r.detail
	if handle == "" && s.handle != "" { // its sid key was lost, so that nobody has been told
		handle = s.handle
		message := `{"t":"ended","sid":"` + handle + `","reason":"` + string(reason) + `"}`
		if err := f.rdb.Publish(ctx, newsChannel, message).Err(); err != nil {
			f.log.WarnContext(ctx, "end of a session not announced", "session", handle, "err", err)
		}
	}
	f.metrics.ended.WithLabelValues(string(reason)).Inc()
	f.log.InfoContext(ctx, "session ended", "session", handle, "user", s.UserID(), "reason", string(reason))
	f.forget(ctx, handle, s.UserID())
}

// forget removes a session from the index: best effort. It returns the user
// that was recorded, and whether this call removed a record.
func (f *Factory) forget(ctx context.Context, handle, userID string) (user string, removed bool) {
	if handle == "" {
		return "", false
	}
	f.indexed.forget(handle)
	var recorded *redis.StringCmd
	var deleted *redis.IntCmd
	_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		recorded = p.HGet(ctx, handleKey(handle), "user")
		deleted = p.Del(ctx, handleKey(handle))
		if userID != "" {
			p.ZRem(ctx, userKey(userID), handle)
		}
		return nil
	})
	if user = recorded.Val(); user != "" && user != userID {
		err = f.rdb.ZRem(ctx, userKey(user), handle).Err()
	}
	if err != nil && !isNil(err) {
		f.log.WarnContext(ctx, "session not removed from the index", "session", handle, "err", err)
	}
	return user, deleted.Val() > 0
}
