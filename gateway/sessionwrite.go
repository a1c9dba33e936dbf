package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// sessionSetHeader is how an upstream asks for a change of the client's
// session: a response header with {"set": {name: value}, "delete": [name]}.
// No client ever sees it.
const sessionSetHeader = "X-Tandem-Session-Set"

// maxSessionSet bounds the header's value, in bytes: what Node's and most
// other servers send at most in all of a response's header.
const maxSessionSet = 16 << 10

// refusal is an error whose answer is decided: see proxy.fail.
type refusal struct {
	why   reason
	cause error
}

func (e *refusal) Error() string { return fmt.Sprintf("%s: %v", e.why, e.cause) }
func (e *refusal) Unwrap() error { return e.cause }

// writeSession makes the change of the session that a response's final header
// asks for, before any of it reaches the client. An error answers the client
// in the response's stead: what the upstream says there would not be true.
func (p *proxy) writeSession(x *exchange, res *http.Response) error {
	delete(res.Trailer, sessionSetHeader)
	lines, asked := res.Header[sessionSetHeader]
	if !asked {
		return nil
	}
	delete(res.Header, sessionSetHeader)
	if !p.cfg.SessionWrite {
		if p.ignored.CompareAndSwap(false, true) {
			p.g.log.Warn("an upstream may not write the session, its "+sessionSetHeader+" is ignored from now on; session_write allows it",
				"route", p.route.name, "upstream", x.target.id)
		}
		return nil
	}
	change, err := parseSessionSet(lines)
	if err == nil {
		err = p.g.cfg.Store.Change(x, x.request, change)
	}
	if err != nil {
		err = &refusal{sessionWriteFailure(err), fmt.Errorf("%s: %w", sessionSetHeader, err)}
		p.g.metrics.sessionWrites.WithLabelValues("refused").Inc()
		return err
	}
	p.g.metrics.sessionWrites.WithLabelValues(string(change.Kind())).Inc()
	if change.Kind() != sessionstore.ChangeWrite {
		if x.long != nil {
			x.long.free = true
		}
		res.Header["Set-Cookie"] = withoutSetCookie(res.Header["Set-Cookie"], p.g.cfg.Cookie)
	}
	return nil
}

func parseSessionSet(lines []string) (sessionstore.Change, error) {
	switch {
	case len(lines) > 1:
		return sessionstore.Change{}, errors.New("the header is there more than once")
	case len(lines[0]) > maxSessionSet:
		return sessionstore.Change{}, fmt.Errorf("the header has %d bytes, %d are allowed", len(lines[0]), maxSessionSet)
	}
	return sessionstore.ParseChange([]byte(lines[0]))
}

// sessionWriteFailure decides who is to blame: the upstream, unless the store
// is away or the session ended while the upstream was at work.
func sessionWriteFailure(err error) reason {
	switch {
	case errors.Is(err, sessionstore.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return reasonStore
	case errors.Is(err, sessionstore.ErrEnded), errors.Is(err, sessionstore.ErrNotFound):
		return reasonSessionEnded
	case errors.Is(err, sessionstore.ErrUndecodable):
		return reasonUndecodable
	default:
		return reasonSessionWrite
	}
}

// withoutSetCookie leaves out the lines that set the cookie of this name.
func withoutSetCookie(lines []string, name string) []string {
	kept := lines[:0]
	for _, line := range lines {
		if n, _, _ := strings.Cut(line, "="); strings.TrimSpace(n) != name {
			kept = append(kept, line)
		}
	}
	return kept
}

// hideSessionSet takes the header from where a response's final header is
// not: interim responses and trailers.
func hideSessionSet(h http.Header) {
	delete(h, sessionSetHeader)
	delete(h, http.TrailerPrefix+sessionSetHeader)
}
