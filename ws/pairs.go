package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// PairProtocol is the WebSocket sub-protocol of pairs. A client that does not
// offer it sends and receives plain messages.
const PairProtocol = "tandem.pair.v1"

// PairsConfig is what the pairs of a Hub need besides what its documents have.
type PairsConfig struct {
	// Plane connects the pairs of all replicas. Required.
	Plane PairPlane

	// Mode of the pairs that are made here. Empty means echo.
	Mode PairMode

	// LoginRequired refuses everybody who is not logged in.
	LoginRequired bool
}

// pairs serves the sockets of pairs.
type pairs struct {
	hub      *Hub
	cfg      PairsConfig
	metrics  *pairMetrics
	upgrader websocket.Upgrader
}

// Pairs returns the handler of GET …/left/{id} and …/right/{id}, whatever
// stands before that in the path. Its sockets are the hub's: they share its
// limits and its origins, are listed, drained and closed with the others. It
// is called once.
func (h *Hub) Pairs(cfg PairsConfig) (http.Handler, error) {
	if cfg.Mode == "" {
		cfg.Mode = ModeEcho
	}
	if cfg.Plane == nil || cfg.Mode != ModeEcho && cfg.Mode != ModeRelay {
		return nil, fmt.Errorf("ws: pairs need a Plane, and a Mode that is %s or %s", ModeEcho, ModeRelay)
	}
	m, err := newPairMetrics(h.cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("ws: metrics: %w", err)
	}
	return &pairs{hub: h, cfg: cfg, metrics: m, upgrader: websocket.Upgrader{
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  &writeBuffers,
		HandshakeTimeout: writeTimeout,
		Subprotocols:     []string{PairProtocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // admit has
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			h.refuse(w, problem.Problem{Status: status, Code: "bad_handshake", Detail: reason.Error()})
		},
	}}, nil
}

// ServeHTTP implements http.Handler. What can be refused is refused in HTTP:
// the session is bound and the side claimed before the upgrade.
func (p *pairs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, side, refusal := p.admit(w, r)
	if refusal != nil {
		p.hub.refuse(w, *refusal)
		return
	}
	c := newPairConn(p, a, side)
	if r.Method == http.MethodOptions {
		p.answer(w, c.sit(r.Context(), c.lookAtSeat))
		c.leave()
		return
	}
	if refusal := c.sit(r.Context(), c.claimSeat); refusal != nil {
		c.leave()
		p.hub.refuse(w, *refusal)
		return
	}
	ws, err := p.upgrader.Upgrade(&hijackable{ResponseWriter: w}, r, nil)
	if err != nil {
		c.leave()
		return
	}
	if !p.hub.register(c) {
		c.leave()
		_ = ws.Close()
		return
	}
	c.start(ws)
	if p.hub.isDraining() {
		c.sendOff(0) // admitted just before
	}
	go func() {
		defer p.hub.connections.Done() // Close waits for it
		c.read()
	}()
}

// answer tells what an upgrade would be answered: browsers do not let a page
// see why one was refused, and send no Origin with a plain GET.
func (p *pairs) answer(w http.ResponseWriter, refusal *problem.Problem) {
	if refusal != nil {
		p.hub.refuse(w, *refusal)
		return
	}
	w.Header().Set("Allow", pairMethods)
	w.WriteHeader(http.StatusNoContent)
}

// pairMethods are those of a side: GET with an upgrade opens it, OPTIONS asks
// whether that could be done now.
const pairMethods = http.MethodGet + ", " + http.MethodOptions

// admit checks an upgrade by what is known without I/O, and counts it.
func (p *pairs) admit(w http.ResponseWriter, r *http.Request) (admission, Side, *problem.Problem) {
	side, id, ok := sideIn(r.URL)
	if !ok {
		return admission{}, "", &problem.Problem{
			Status: http.StatusNotFound, Code: "no_such_side",
			Detail: "The two sides of a pair are left/{id} and right/{id}; an ID has 1 to 128 characters of A-Za-z0-9._~:-.",
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodOptions {
		w.Header().Set("Allow", pairMethods)
		return admission{}, "", &problem.Problem{
			Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "A side of a pair is opened with GET.",
		}
	}
	if !p.hub.origins.Allow(r) {
		return admission{}, "", &problem.Problem{
			Status: http.StatusForbidden, Code: "origin_not_allowed", Detail: "Pages of this origin may not open sockets here.",
		}
	}
	if r.Method == http.MethodGet && (!websocket.IsWebSocketUpgrade(r) || r.Header.Get("Sec-Websocket-Version") != "13") {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Version", "13")
		return admission{}, "", &problem.Problem{
			Status: http.StatusUpgradeRequired, Code: "upgrade_required", Detail: "Pairs are served to WebSockets, version 13, only.",
		}
	}
	a := admission{document: id, origin: endpointOf(r, id)}
	a.cookie = p.hub.sessionID(r)
	return a, side, p.hub.count(a)
}

// sideIn reads the side and the ID, which are the last two segments of the
// path. No segment before them may be a side: /left/right/x is neither.
func sideIn(u *url.URL) (side Side, id string, ok bool) {
	segments := strings.Split(u.EscapedPath(), "/")
	if len(segments) < 2 {
		return "", "", false
	}
	for i, s := range segments[:len(segments)-1] {
		if s != string(Left) && s != string(Right) {
			continue
		}
		if i != len(segments)-2 {
			return "", "", false
		}
		side = Side(s)
	}
	id, err := url.PathUnescape(segments[len(segments)-1])
	return side, id, side != "" && err == nil && documentID.MatchString(id)
}

// sit binds the session and does something with the seat that it asks for. On
// a refusal the caller leaves.
func (c *pairConn) sit(ctx context.Context, do func(context.Context, PairSeat) error) *problem.Problem {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.bind(ctx); err != nil {
		return c.refusal(err)
	}
	if refusal := c.takePlace(ctx); refusal != nil {
		return refusal
	}
	seat := PairSeat{Pair: c.pair, Side: c.side, Mode: c.pairs.cfg.Mode, Connection: c.id, Session: c.who.handle}
	if err := do(ctx, seat); err != nil {
		return c.refusal(err)
	}
	return c.passed()
}

// claimSeat takes the seat, as leave gives it back.
func (c *pairConn) claimSeat(ctx context.Context, seat PairSeat) (err error) {
	c.claim, err = c.pairs.cfg.Plane.Claim(ctx, seat, c)
	return err
}

// lookAtSeat reports whether the seat could be had.
func (c *pairConn) lookAtSeat(ctx context.Context, seat PairSeat) error {
	return c.pairs.cfg.Plane.Look(ctx, seat)
}

// passed refuses what has changed since it was found: the session has ended,
// or the side is lost again.
func (c *pairConn) passed() *problem.Problem {
	c.mu.Lock()
	why := c.closing
	c.mu.Unlock()
	switch {
	case why == nil:
		return nil
	case why.code == CloseSideTaken:
		return c.refusal(ErrSideTaken)
	default:
		return c.refusal(sessionstore.ErrNotFound)
	}
}

// takePlace counts the connection for its session and user.
func (c *pairConn) takePlace(ctx context.Context) *problem.Problem {
	if c.who.handle == "" {
		return nil
	}
	place := Place{c.who.handle, c.who.user}
	switch err := c.hub.cfg.Places.Take(ctx, place, c.hub.cfg.Limits.places()); {
	case errors.Is(err, ErrCrowded):
		return crowded()
	case err != nil:
		return c.refusal(err)
	}
	c.mu.Lock()
	c.place = place
	c.mu.Unlock()
	c.hub.login(c.who.handle)
	c.shared = c.hub.allowances.hold(c.who.user)
	return nil
}

// releasePlace takes back takePlace, and returns the session that it was
// for, "" for none.
func (c *pairConn) releasePlace() (handle string) {
	c.mu.Lock()
	place := c.place
	c.place = Place{}
	c.mu.Unlock()
	c.hub.cfg.Places.Release(place)
	c.hub.allowances.release(place.User, c.shared)
	c.shared = nil
	return place.Session
}

// bind holds on to the cookie's session, before anything depends on it: its
// end is heard from then on. Nobody needs one where login is optional.
func (c *pairConn) bind(ctx context.Context) error {
	err := sessionstore.ErrNotFound
	if c.cookie != "" {
		var binding Binding
		var snapshot *sessionstore.Snapshot
		if binding, snapshot, err = c.hub.cfg.Bind(ctx, c.cookie, c); err == nil {
			c.binding = binding
			c.mu.Lock()
			c.who = identity{handle: snapshot.Handle(), user: snapshot.UserID(), name: snapshot.UserName()}
			c.mu.Unlock()
			c.SessionChanged(binding.Snapshot()) // since a moment ago, when it did not know who
		}
	}
	switch {
	case !c.pairs.cfg.LoginRequired && (errors.Is(err, sessionstore.ErrNotFound) || errors.Is(err, sessionstore.ErrEnded)):
		return nil
	case err == nil && c.pairs.cfg.LoginRequired && c.who.user == "":
		return errNoUser
	}
	return err
}

// refusal turns what stands in the way into a problem document.
func (c *pairConn) refusal(err error) *problem.Problem {
	var p problem.Problem
	switch {
	case errors.Is(err, errNoUser), errors.Is(err, sessionstore.ErrNotFound):
		p = problem.Problem{Status: http.StatusUnauthorized, Code: "login_required", Detail: "Nobody is logged in; log in first."}
	case errors.Is(err, ErrSideTaken):
		p = problem.Problem{
			Status: http.StatusConflict, Code: "side_taken",
			Detail: fmt.Sprintf("Somebody else holds the %s side of this pair.", c.side),
		}
	case errors.Is(err, ErrUnavailable):
		p = problem.Unavailable("The pairs' store cannot be reached.")
	default:
		p = problem.From(err)
	}
	if p.Status == http.StatusInternalServerError {
		c.log.Error("a side of a pair cannot be opened", "err", err)
	}
	return &p
}

// leave takes back all that sit did, and what admit counted.
func (c *pairConn) leave() {
	c.cancel()
	c.letGo()
	handle := c.releasePlace()
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.discountLocked(c.cookie, handle)
}

// letGo frees the side and the session.
func (c *pairConn) letGo() {
	if c.claim != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), callTimeout)
		defer cancel()
		c.claim.Release(ctx)
	}
	if c.binding != nil {
		c.binding.Close()
	}
}
