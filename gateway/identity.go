package gateway

import (
	"errors"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/internal/userheader"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// identityHeader is "unavailable" when the session could not be read, so that
// nothing is known of who is there. Else userheader tells; clients cannot set
// either, see removeForged.
const identityHeader = "X-Tandem-Identity"

// loginPath is the web app's login page.
const loginPath = "/login"

// identity is what the session says about the client. The zero value is a
// client without a session.
type identity struct {
	user, name, handle string
	unavailable        bool // it is not known
}

// identify reads the request's session, once, and gives the client its
// cookie again when the session has moved to another ID. No session, or one
// that has ended, is no error.
func (g *Gateway) identify(w http.ResponseWriter, r *http.Request) (identity, error) {
	if g.cfg.Store == nil {
		return identity{}, nil
	}
	s, err := g.cfg.Store.Session(r)
	switch {
	case errors.Is(err, sessionstore.ErrNotFound), errors.Is(err, sessionstore.ErrEnded):
		return identity{}, nil
	case err != nil:
		return identity{unavailable: true}, err
	case s.IsNew():
		return identity{}, nil
	}
	if s.Renewed() {
		g.cfg.Store.SetCookie(w, r, s)
	}
	return identity{user: s.UserID(), name: s.UserName(), handle: s.Handle()}, nil
}

// admit finds out who is there and reports whether the request may go on to
// an upstream; if not, it has been answered. A route that needs no login goes
// on without an identity when that cannot be known.
func (x *exchange) admit(r *http.Request, login string) bool {
	who, err := x.g.identify(x, r)
	x.who = who
	x.session.identified(who)
	switch {
	case err != nil && login == LoginRequired && errors.Is(err, sessionstore.ErrUnavailable):
		x.refuse(r, reasonStore, err)
	case err != nil && login == LoginRequired:
		x.refuse(r, reasonUndecodable, err)
	case err != nil:
		x.cause = err
		return true
	case login == LoginRequired && who.user == "" && !x.g.cfg.Available():
		x.refuse(r, reasonStore, nil)
	case login == LoginRequired && who.user == "":
		x.askToLogIn(r)
	default:
		return true
	}
	return false
}

// askToLogIn sends a browser to the login page and tells everything else 401;
// a form, too, since a login does not bring its content back. So it does at
// the login page's own path: where another route has that, going there again
// would be going round in circles.
func (x *exchange) askToLogIn(r *http.Request) {
	page := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !page || !problem.PrefersHTML(r) || r.URL.Path == loginPath {
		x.refuse(r, reasonLoginRequired, nil)
		return
	}
	x.reason = reasonLoginRequired
	// One slash at the start: "//elsewhere" would be another site.
	next := "/" + strings.TrimLeft(r.URL.RequestURI(), `/\`)
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Location", loginPath+"?next="+url.QueryEscape(next))
	x.WriteHeader(http.StatusSeeOther)
}

// set puts the identity in the header of a request to an upstream.
func (who identity) set(h http.Header) {
	userheader.Set(h, who.user, who.name, who.handle)
	if who.unavailable {
		h.Set(identityHeader, "unavailable")
	}
}

// What only the gateway says to upstreams; a "-" at the end stands for every
// name that starts so. Of the second list a client's own are replaced later:
// see origin.set.
var (
	ownHeaders       = []string{"x-tandem-", "x-tandem", "x-request-id"}
	forwardedHeaders = []string{"x-forwarded-", "x-forwarded", "forwarded", "x-real-ip"}
)

// removeForged deletes every header that an upstream could take for one of
// the gateway's, in whatever spelling. CGI and its heirs fold case and write
// "_" for "-"; PHP does so for "." too; so anything that is neither letter
// nor digit counts as "-". The forwarding headers stay where they are spelled
// as they should be, since a trusted proxy may have sent them.
func removeForged(h http.Header) {
	for name := range h {
		if c := name[0] | 0x20; c != 'x' && c != 'f' {
			continue // the common case, without folding
		}
		folded := strings.Map(foldHeaderByte, name)
		if listedIn(folded, ownHeaders) || listedIn(folded, forwardedHeaders) && !strings.EqualFold(folded, name) {
			delete(h, name)
		}
	}
}

// listedIn reports whether a folded name is in the list.
func listedIn(folded string, list []string) bool {
	return slices.ContainsFunc(list, func(r string) bool {
		return folded == r || r[len(r)-1] == '-' && strings.HasPrefix(folded, r)
	})
}

func foldHeaderByte(c rune) rune {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return c
	default:
		return '-'
	}
}

// removeCookie takes every cookie of this name out of the Cookie headers and
// leaves the bytes of all others as they came.
func removeCookie(h http.Header, name string) {
	var kept []string
	changed := false
	for _, line := range h["Cookie"] {
		rest, removed := withoutCookie(line, name)
		changed = changed || removed
		if !removed || strings.Trim(rest, " \t;") != "" {
			kept = append(kept, rest)
		}
	}
	switch {
	case !changed:
	case len(kept) == 0:
		delete(h, "Cookie")
	default:
		h["Cookie"] = kept
	}
}

func withoutCookie(line, name string) (rest string, removed bool) {
	if !strings.Contains(line, name) {
		return line, false
	}
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		// net/http and others allow space around the name.
		if n, _, _ := strings.Cut(part, "="); textproto.TrimString(n) == name {
			removed = true
			continue
		}
		kept = append(kept, part)
	}
	if !removed {
		return line, false
	}
	rest = strings.Join(kept, ";")
	if line[0] != ' ' {
		rest = strings.TrimPrefix(rest, " ") // its separator went with the first cookie
	}
	return rest, true
}
