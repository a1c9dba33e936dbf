package sessionstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// Rotate gives the session a new ID and stores this copy's changes with it.
// The handle and all that hangs on it stay. Afterwards the client's cookie
// must be set again.
//
// With a login the user's attributes are part of the same write and the
// absolute lifetime starts anew; the old ID is worth nothing at once. Without
// one (a privilege changed) it leads here for Config.Grace.
//
// Errors are those of Save; a login in a session of another user is refused
// (see [Factory.Login]), and with Config.HashIDs a rotation without a login of
// a session that was loaded by its handle: no client could follow. After ErrUnavailable it is not known which ID
// the session has; handle-based calls find it.
func (s *Session) Rotate(ctx context.Context, login *Login) error {
	if !s.IsNew() {
		defer s.f.lanes.enter(ctx, s.ref)()
	}
	return s.rotate(ctx, login)
}

// rotate crosses two Cluster slots, so that no single script can do it. The
// new value is prepared first, and short-lived until the old ID's slot has
// decided: whoever ends the session before finds the old ID and prevents the
// rotation, whoever ends it after finds the heir.
func (s *Session) rotate(ctx context.Context, login *Login) (err error) {
	name := rand.Text()
	var held ref // empty: nothing is
	defer func() {
		if err != nil && held != "" {
			s.f.release(ctx, held, name)
		}
	}()
	for conflicts := range maxHops {
		if err := s.applyLogin(login); err != nil {
			return err
		}
		if s.IsNew() {
			return s.create(ctx, login)
		}
		heir, r, err := s.tryRotate(ctx, login, name)
		if err != nil {
			return err
		}
		switch r.outcome {
		case done:
			return s.promote(ctx, heir, login)
		case conflict:
			held = s.ref
			err = s.rebase(r.detail)
		case ended:
			err = s.moveTo(ctx, tombstone(r.detail), login)
		case absent:
			err = ErrNotFound
		default:
			err = r.unexpected("rotate")
		}
		if err != nil {
			return err
		}
		if err := pause(ctx, conflicts+1); err != nil {
			return err
		}
	}
	return fmt.Errorf("sessionstore: gave up after %d attempts", maxHops)
}

// tryRotate prepares an heir and asks the old ID's slot to give way to it.
// The heir is a copy: this one stays on the old ID. A login is not held up by
// what it adds to a full session. name tells this rotation from others.
func (s *Session) tryRotate(ctx context.Context, login *Login, name string) (*Session, reply, error) {
	f := s.f
	raw, err := s.merged()
	if err != nil {
		return nil, reply{}, err
	}
	grace := f.cfg.Grace
	switch {
	case login != nil:
		grace = 0 // who knew the ID before the login must not be logged in by it
	case s.id == "":
		return nil, reply{}, errNoID
	}
	if login == nil || login.With != nil {
		if err := s.checkSize(raw); err != nil {
			return nil, reply{}, err
		}
	}
	heir := *s
	if err := heir.createAt(ctx, f.placeOf(NewID()), raw, provisionalTTL); err != nil {
		return nil, reply{}, err
	}
	next := ""
	if grace > 0 {
		next = f.handover(s.place, heir.id)
	}
	r, err := f.run(ctx, rotateScript,
		[]string{f.valueKey(s.ref), f.endKey(s.ref), f.nextKey(s.ref), f.sidKey(s.ref), f.wroteKey(s.ref, rand.Text()), f.holdKey(s.ref)},
		s.held, string(heir.ref), next, ms(grace), ms(f.cfg.AbsoluteTimeout), ms(wroteTTL), announcement(newsRotated, s.handle), name, ms(holdTTL))
	if err != nil {
		return nil, reply{}, err // it may have happened: the heir must stay
	}
	if r.outcome != done {
		f.discard(ctx, heir.ref)
	}
	return &heir, r, nil
}

// release ends the hold of a rotation that gave up. Left alone it expires.
func (f *Factory) release(ctx context.Context, r ref, name string) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if _, err := f.run(ctx, releaseScript, []string{f.holdKey(r)}, name); err != nil {
		f.log.DebugContext(ctx, "hold not released", "err", err)
	}
}

// discard deletes an heir that nobody has heard of. Left alone it expires.
func (f *Factory) discard(ctx context.Context, r ref) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := f.rdb.Del(ctx, f.valueKey(r), f.sidKey(r)).Err(); err != nil {
		f.log.DebugContext(ctx, "prepared session not deleted", "err", err)
	}
}

// promote makes this copy its heir and gives the heir its full life. If that
// fails the next load does it.
func (s *Session) promote(ctx context.Context, heir *Session, login *Login) error {
	f := s.f
	s.stored, s.changes, s.renewed = heir.stored, nil, true
	f.metrics.rotated(login)
	f.log.InfoContext(ctx, "session rotated", "session", s.handle, "user", s.UserID())
	ctx, cancel := detached(ctx)
	defer cancel()
	lives, err := f.touchStored(ctx, []*stored{&s.stored}, 0)
	switch {
	case err != nil:
		f.log.WarnContext(ctx, "rotated session not touched", "session", s.handle, "err", err)
	case lives[0].left < 0:
		if _, err := f.follow(ctx, s.ref); err != nil {
			return err // ended since
		}
	default:
		s.idleEnd = time.Now().Add(lives[0].left)
	}
	f.indexAfter(ctx, s, login)
	return nil
}

// moveTo goes on with the session that replaced the one this copy is of. To
// one that a login replaced only its own user may, who logs in right now:
// the form was sent twice.
func (s *Session) moveTo(ctx context.Context, stone tombstone, login *Login) error {
	by := s.by
	if login != nil {
		by = bound
	}
	heir, err := s.f.heirOf(ctx, s.place, stone, by)
	if err != nil {
		return err
	}
	newest, err := s.f.loadAt(ctx, heir, by) // there may be a login further on
	if err != nil {
		return err
	}
	if login != nil && !newest.openTo(login) {
		return &EndedError{Reason: ReasonRotated}
	}
	pending := s.changes
	s.stored, s.changes, s.renewed = newest.stored, pending, true
	return s.rebase(newest.held)
}
