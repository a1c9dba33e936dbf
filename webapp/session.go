package webapp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// chatNameKey is the attribute that sockets and pages both show and write.
const chatNameKey = "chat.name"

// session returns the request's session, nil when it has none that lives,
// and sets the cookie again when the session says that it should. Errors
// other than "there is none" (the store is away, the value is unreadable) are
// the caller's to report: they never mean "not logged in".
func (a *app) session(w http.ResponseWriter, r *http.Request) (*sessionstore.Session, error) {
	s, err := a.liveSession(w, r)
	if errors.Is(err, sessionstore.ErrNotFound) || errors.Is(err, sessionstore.ErrEnded) {
		return nil, nil
	}
	return s, err
}

// liveSession is session with ErrNotFound and *EndedError told apart. A
// client that brings no session has none only while it could get one.
func (a *app) liveSession(w http.ResponseWriter, r *http.Request) (*sessionstore.Session, error) {
	s, err := a.Store.Session(r)
	if errors.Is(err, sessionstore.ErrNotFound) && !a.Available() {
		return nil, sessionstore.ErrUnavailable
	}
	if err != nil {
		return nil, err
	}
	if s.IsNew() {
		return nil, sessionstore.ErrNotFound
	}
	if s.Renewed() {
		a.Store.SetCookie(w, r, s)
	}
	return s, nil
}

// loggedIn returns the session of a logged-in user. When there is none it
// has answered already: with the login page, or with why that is not known.
func (a *app) loggedIn(w http.ResponseWriter, r *http.Request, next string) (*sessionstore.Session, bool) {
	s, err := a.session(w, r)
	if err != nil {
		a.failure(w, r, err)
		return nil, false
	}
	if userOf(s) == nil {
		http.Redirect(w, r, withNext("/login", next), http.StatusSeeOther)
		return nil, false
	}
	return s, true
}

// chatName is the name that s's user chose, whoever wrote it and as what.
func chatName(s *sessionstore.Session) string {
	v, _ := s.Get(chatNameKey)
	name, _ := v.(string)
	return name
}

// saveTimeout bounds a write that its client's going away must not interrupt.
const saveTimeout = 5 * time.Second

// unhurried is r's context for such a write.
func unhurried(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), saveTimeout)
}

// save stores what was changed in s and gives the client its ID if it has
// not got that.
func (a *app) save(w http.ResponseWriter, r *http.Request, s *sessionstore.Session) error {
	ctx, cancel := unhurried(r)
	defer cancel()
	created := s.IsNew()
	if err := s.Save(ctx); err != nil {
		return err
	}
	if created || s.Renewed() {
		a.Store.SetCookie(w, r, s)
	}
	return nil
}
