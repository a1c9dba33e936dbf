package ws

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// A connection listens to its session. These methods are called one at a
// time and do not block: they note what the client has to be told.
var _ sessionstore.Listener = (*conn)(nil)

// SessionChanged has the client told what is new among the attributes it may
// read. A session that speaks for somebody else now is not this connection's.
func (c *conn) SessionChanged(s *sessionstore.Snapshot) {
	c.mu.Lock()
	stranger := c.who.user != "" && s.UserID() != c.who.user
	c.out.newest = s
	c.wakeLocked()
	c.recheckLocked()
	c.mu.Unlock()
	if stranger {
		c.SessionEnded(sessionstore.ReasonLogout)
	}
}

// SessionEnded closes the connection and says why the session ended.
func (c *conn) SessionEnded(r sessionstore.Reason) {
	c.close(closeEnded(r))
	c.sessionOver()
}

// SessionUnverified closes the connection: its session may have ended.
func (c *conn) SessionUnverified() { c.close(closeUnverified) }

// SessionRotated has the client fetch its new cookie.
func (c *conn) SessionRotated() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.renew = true
	c.wakeLocked()
}

// SessionExpiring has the client told that the session ends soon.
func (c *conn) SessionExpiring(in time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.expiring = time.Now().Add(in)
	c.wakeLocked()
}

// authenticate binds the connection to a session that has a user: the one of
// the upgrade's cookie, or the one a ticket stands for. Asked again after it
// succeeded, it answers the same again.
func (c *conn) authenticate(req request) {
	var body struct {
		Ticket string `json:"ticket"`
	}
	if err := req.body(&body); err != nil {
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	}
	if c.binding != nil {
		c.reply(authResult(req.ID, c.who, c.binding.Snapshot())) // who is written here only
		return
	}
	ctx, cancel := c.call()
	defer cancel()
	snapshot, err := c.bind(ctx, body.Ticket)
	if err != nil {
		c.refuseLogin(req.ID, err)
		return
	}
	who := identity{snapshot.Handle(), snapshot.UserID(), snapshot.UserName(), c.color}
	if who.color == "" {
		who.color = colorOf(who.user)
	}
	if !c.sit(ctx, req.ID, Place{who.handle, who.user}) {
		return
	}
	c.hub.login(who.handle)
	c.shared.Store(c.hub.allowances.hold(who.user))
	c.mu.Lock()
	c.who = who
	c.out.known = snapshot
	c.auth.Stop()
	c.auth = nil
	c.setStateLocked(stateAuthenticated)
	// In one step with the state, so that nothing unasked comes before.
	c.answerLocked(encode(authResult(req.ID, who, snapshot)))
	c.mu.Unlock()
	c.logger().Debug("socket authenticated")
	if c.binding.Snapshot().UserID() != who.user { // since a moment ago, when SessionChanged did not know who
		c.close(closeEnded(sessionstore.ReasonLogout))
	}
}

// sit takes the connection's place, unless it has it since the upgrade.
func (c *conn) sit(ctx context.Context, re string, at Place) bool {
	had := c.place
	c.place = Place{}
	err := c.hub.reseat(ctx, had, at)
	switch {
	case err == nil:
		c.place = at
		return true
	case errors.Is(err, ErrCrowded):
		c.fail(re, CodeRateLimited, "this session or user has too many connections")
		c.close(closeCount)
	default:
		c.binding.Close()
		c.binding = nil
		c.unavailable(re, err)
	}
	return false
}

// errNoUser: the session is there and nobody is logged in.
var errNoUser = errors.New("nobody is logged in")

// bind finds the session and holds on to it. The binding is registered
// before the session is read, so that no logout falls between the two.
func (c *conn) bind(ctx context.Context, ticket string) (*sessionstore.Snapshot, error) {
	id := c.cookie
	if ticket != "" {
		var err error
		if id, err = c.hub.cfg.RedeemTicket(ctx, ticket); err != nil {
			return nil, err
		}
	}
	if id == "" {
		return nil, sessionstore.ErrNotFound
	}
	binding, snapshot, err := c.hub.cfg.Bind(ctx, id, c)
	if err != nil {
		return nil, err
	}
	if snapshot.UserID() == "" {
		binding.Close()
		return nil, errNoUser
	}
	c.binding = binding
	return snapshot, nil
}

// refuseLogin answers a failed authenticate and closes, unless all that is
// known is that nothing is known.
func (c *conn) refuseLogin(re string, err error) {
	code, why := CodeAuthRequired, closeLogin
	var ended *sessionstore.EndedError
	switch {
	case errors.As(err, &ended):
		why = closeEnded(ended.Reason)
	case errors.Is(err, sessionstore.ErrNotFound), errors.Is(err, sessionstore.ErrEnded), errors.Is(err, errNoUser):
	case errors.Is(err, sessionstore.ErrUndecodable):
		code, why = CodeForbidden, closeForbidden
		c.logger().Error("a socket's session cannot be decoded", "err", err)
	default:
		c.unavailable(re, err)
		return
	}
	c.reply(authFrame{Type: "auth_result", Re: re, Code: code})
	c.close(why)
}

func authResult(re string, who identity, s *sessionstore.Snapshot) authFrame {
	return authFrame{
		Type: "auth_result", Re: re, OK: true,
		User:    &userInfo{who.user, who.name},
		Session: &sessionInfo{who.handle, s.ExpiresAt()},
		Color:   who.color,
	}
}

// sessionGet answers with readable attributes, read anew: what a page wrote
// just now is there.
func (c *conn) sessionGet(req request) {
	var body struct {
		Keys []string `json:"keys"`
	}
	if err := req.body(&body); err != nil {
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	}
	c.updateSession(req.ID, body.Keys, func(*sessionstore.Session) error { return nil })
}

// sessionSet writes attributes, all or none.
func (c *conn) sessionSet(req request) {
	var body struct {
		Set    map[string]json.RawMessage `json:"set"`
		Delete []string                   `json:"delete"`
	}
	if err := req.body(&body); err != nil {
		c.badFrame(req.ID, CodeBadMessage, err.Error())
		return
	}
	for _, key := range body.Delete {
		if _, both := body.Set[key]; both {
			c.badFrame(req.ID, CodeBadMessage, string(encode(key))+" is both set and deleted; nothing was written")
			return
		}
	}
	for _, key := range slices.Concat(slices.Sorted(maps.Keys(body.Set)), body.Delete) {
		if !c.hub.cfg.Writable.Match(key) {
			c.fail(req.ID, CodeForbidden, "a client may not write "+string(encode(key))+"; nothing was written")
			return
		}
	}
	c.updateSession(req.ID, nil, sessionstore.Change{Set: body.Set, Delete: body.Delete}.Apply)
}

// updateSession runs fn on the newest state of the session and answers with
// its readable attributes, or those of keys. When it was all of them they
// count as known to the client: its own change does not come back to it as
// session_changed.
func (c *conn) updateSession(re string, keys []string, fn func(*sessionstore.Session) error) {
	c.mu.Lock()
	c.out.updating = true
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.hub.ctx), callTimeout)
	defer cancel()
	snapshot, err := c.binding.Update(ctx, fn)
	if err == nil {
		c.reply(valuesFrame{"session", re, only(c.readable(snapshot), keys)})
	} else {
		c.refuseUpdate(re, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.updating = false
	if err == nil && keys == nil { // else other attributes may have changed that the client has not been told
		c.out.known = snapshot
	}
	c.wakeLocked()
}

// readable returns the attributes of s that clients may read.
func (c *conn) readable(s *sessionstore.Snapshot) map[string]json.RawMessage {
	if values := s.Readable(c.hub.cfg.Readable); values != nil {
		return values
	}
	return map[string]json.RawMessage{}
}

// only returns the values of keys; nil means all.
func only(values map[string]json.RawMessage, keys []string) map[string]json.RawMessage {
	if keys == nil {
		return values
	}
	some := make(map[string]json.RawMessage, len(keys))
	for _, key := range keys {
		if v, ok := values[key]; ok {
			some[key] = v
		}
	}
	return some
}

func (c *conn) refuseUpdate(re string, err error) {
	var ended *sessionstore.EndedError
	switch {
	case errors.As(err, &ended):
		c.close(closeEnded(ended.Reason))
	case errors.Is(err, sessionstore.ErrNotFound):
		c.close(closeEnded(sessionstore.ReasonGone))
	case errors.Is(err, sessionstore.ErrReserved):
		c.fail(re, CodeForbidden, err.Error()+"; nothing was written")
	case errors.Is(err, sessionstore.ErrUndecodable):
		c.logger().Error("a socket's session cannot be decoded", "err", err)
		c.fail(re, CodeForbidden, "the session holds a value that cannot be read here; nothing was written")
	case errors.Is(err, sessionstore.ErrValue):
		c.badFrame(re, CodeBadMessage, err.Error()+"; nothing was written")
	case errors.Is(err, sessionstore.ErrTooLarge):
		c.fail(re, CodeTooLarge, err.Error()+"; nothing was written")
	default:
		c.unavailable(re, err)
	}
}
