package sessionstore

import (
	"context"
	"errors"
	"time"
)

// Login is who logs in.
type Login struct {
	UserID   string // not empty
	UserName string

	// Remember lets the client's cookie outlive the browser; see
	// [Session.Remember]. False also forgets an earlier choice.
	Remember bool

	// With changes more of the session that the user gets, in the same write.
	// It may run again, on a newer state; its error ends the login before
	// anything was written. Nil: nothing more.
	With func(*Session) error
}

// errOtherUser: the session belongs to another user.
var errOtherUser = errors.New("sessionstore: session of another user")

// Login logs a user in, in the session that the client has, if any: current
// may be nil or new. The session that is returned has an ID that nobody knew
// before; current is not to be used again.
//
// An anonymous session keeps its handle and values, and so does one of the
// same user. One of another user is ended (logout), and the user gets a new
// one; so does a user whose session has ended meanwhile. Where the user then
// has more than Config.MaxPerUser, the oldest others are ended (revoked).
func (f *Factory) Login(ctx context.Context, current *Session, l Login) (*Session, error) {
	if l.UserID == "" {
		return nil, errors.New("sessionstore: login without a user ID")
	}
	if current == nil {
		current = f.New()
	}
	err := current.Rotate(ctx, &l)
	if errors.Is(err, errOtherUser) {
		if err = current.Destroy(ctx, ReasonLogout); err == nil {
			err = ErrNotFound
		}
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrEnded) {
		current = f.New()
		err = current.Rotate(ctx, &l)
	}
	if err != nil {
		return nil, err
	}
	meta, _ := ctx.Value(metaKey{}).(Meta)
	f.log.InfoContext(ctx, "login", "session", current.handle, "user", l.UserID, "client", meta.Address)
	return current, nil
}

// openTo reports whether login may take place in the stored session: it is
// anonymous, or the same user's.
func (s *Session) openTo(login *Login) bool {
	cell, ok := s.attrs.find(named(attrUserID))
	if !ok {
		return true
	}
	user := s.f.codec.text(cell)
	return user == "" || user == login.UserID
}

// applyLogin makes the login a pending change. With nil it does nothing.
func (s *Session) applyLogin(login *Login) error {
	switch {
	case login == nil:
		return nil
	case !s.openTo(login):
		return errOtherUser
	}
	if login.With != nil {
		if err := login.With(s); err != nil {
			return err
		}
	}
	now := time.Now().Truncate(time.Millisecond)
	values := map[string]string{
		attrUserID: login.UserID, attrUserName: login.UserName,
		attrAuth: formatTime(now), attrCreated: formatTime(now),
	}
	if s.UserID() == login.UserID {
		delete(values, attrUserID) // an application keeps it as a number, or just set it so
	}
	for name, value := range values {
		if err := s.set(named(name), value); err != nil {
			return err
		}
	}
	s.created = now
	return s.Remember(login.Remember)
}
