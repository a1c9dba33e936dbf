package sessionstore

import (
	"context"
	"errors"
	"net/http"

	"github.com/gorilla/sessions"
)

// Change makes c in the request's session, in one step, for an application
// that has no client of Redis; and gives the browser its cookie where that is
// due. Call it before the response's header is written.
//
// Setting user.id is a login, with the rules of [Factory.Login]: a new ID,
// and a new session where the present one is another user's. Deleting user.id
// is a logout, which ends the session for all its holders. Anything else is
// written to the session; a client without one gets an anonymous one, if
// something is set.
//
// Nothing is written when it returns an error: ErrChange, ErrReserved and
// ErrValue for what must not or cannot be written, those of [Factory.Load]
// and [Session.Save] otherwise. With ErrUnavailable that is not known. The
// change goes on when the client goes away.
func (st *Store) Change(w http.ResponseWriter, r *http.Request, c Change) error {
	if err := st.factory.try(c); err != nil {
		return err
	}
	gs, err := sessions.GetRegistry(r).Get(typedStore{st}, st.cookie)
	p, ok := st.pages.get(gs)
	if !ok {
		return ErrNotLoaded
	}
	kind := c.Kind()
	if err != nil && !(kind != ChangeWrite && errors.Is(err, ErrUndecodable)) {
		return err
	}
	ctx := WithMeta(context.WithoutCancel(r.Context()), requestMeta(r))
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()

	switch kind {
	case ChangeLogout:
		return st.Logout(w, r)
	case ChangeLogin:
		s, err := st.factory.Login(ctx, p.session, c.login(p.session))
		if err != nil {
			return err
		}
		p.session = s
		st.SetCookie(w, r, s)
	default:
		created := p.session.IsNew()
		if err := p.change(ctx, c); err != nil {
			return err
		}
		if created || p.session.Renewed() {
			st.SetCookie(w, r, p.session)
		}
	}
	return nil
}

// Logout ends the request's session for all its holders, and makes the browser
// forget its cookie. Call it before the response's header is written. A client
// without a session, or with one that has ended, is no error.
//
// A value that cannot be decoded is ended, too: its user wants it gone, and
// other applications may be able to read it. Of an ID that was replaced a
// moment ago, by a login say, the session that has replaced it is ended: to
// clear the cookie alone would leave that alive.
//
// With an error, ErrUnavailable for one, the cookie stays, and the session may
// be alive: tell the user.
func (st *Store) Logout(w http.ResponseWriter, r *http.Request) error {
	gs, err := sessions.GetRegistry(r).Get(typedStore{st}, st.cookie)
	p, ok := st.pages.get(gs)
	if !ok {
		return ErrNotLoaded
	}
	if err != nil && !errors.Is(err, ErrUndecodable) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), saveTimeout)
	defer cancel()
	if err := p.logout(ctx, st.factory); err != nil {
		return err
	}
	st.ClearCookie(w, r)
	return nil
}

// try finds what is wrong with c whatever session it is for: a login may have
// ended another user's session by the time that it writes.
func (f *Factory) try(c Change) error {
	if err := c.check(); err != nil {
		return err
	}
	trial := f.New()
	if err := c.Apply(trial); err != nil {
		return err
	}
	raw, err := trial.merged()
	if err != nil {
		return err
	}
	return trial.checkSize(raw)
}

// change writes c to the session, or to a new one.
func (p *page) change(ctx context.Context, c Change) error {
	if err := c.Apply(p.session); err != nil {
		return err
	}
	if p.session.IsNew() && len(p.session.keys()) == 0 {
		return nil // nothing was set, and there was nothing to delete
	}
	late, err := p.late(ctx)
	switch {
	case err != nil:
		return err
	case late:
		return p.absent
	}
	return p.session.Save(ctx)
}
