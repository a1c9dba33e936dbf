package gateway

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// longAfter is when a response that is still under way, to a visitor who had
// to be logged in, is tied to the session like a socket. A response that is
// done before costs no further read of the session.
const longAfter = 5 * time.Second

// stream is a response to a visitor who had to be logged in, which ends with
// the session if it takes long. It belongs to the exchange's goroutine, but
// for stop.
type stream struct {
	x      *exchange
	r      *http.Request      // as it came
	cancel context.CancelFunc // of the request to the upstream

	free  bool      // not to be tied: see writeSession and tie
	tried time.Time // when the session could not be read

	mu   sync.Mutex // a leaf, but for the client connection's deadline
	over bool       // the exchange is; the connection belongs to the next
}

// stream ties x's response to the session that r was let in with, until
// unbind. The request that it returns is the one to send on.
func (x *exchange) stream(r *http.Request) *http.Request {
	ctx, cancel := context.WithCancel(r.Context())
	x.long = &stream{x: x, r: r, cancel: cancel}
	return r.WithContext(ctx)
}

// begins looks at the header of the response: streams of events (the
// HTML standard's text/event-stream) have no end of their own. An error
// answers in the response's stead.
func (s *stream) begins(h http.Header) error {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if kind != "text/event-stream" {
		return nil
	}
	return s.tie()
}

// goesOn is called for each piece of the response but the first, which may be
// all of one that took long to make. An error means that the session has
// ended, and that nothing more may be sent.
func (s *stream) goesOn() error {
	now := time.Now()
	if s.x.sent == 0 || now.Sub(s.x.started) < longAfter || now.Sub(s.tried) < longAfter {
		return nil
	}
	return s.tie()
}

// tie makes the bond. While the store is away the response goes on: it was
// let in when the store was there.
func (s *stream) tie() error {
	if s.free || s.x.bond != nil {
		return nil
	}
	why, cause := reasonStore, error(nil)
	if s.x.g.cfg.Available() {
		why, cause = s.x.tryBind(s.r)
	}
	var ended *sessionstore.EndedError
	switch {
	case why == "":
		s.x.bond.onEnd(s.stop)
	case why == reasonStore:
		s.tried = time.Now()
	case errors.As(cause, &ended) && ended.Reason == sessionstore.ReasonRotated:
		s.free = true // the session lives, under an ID that is not known here
	default:
		s.x.reason, s.x.cause = why, cause // if it is too late for an answer
		return &refusal{why, cause}
	}
	return nil
}

// stop cuts the response, whichever side it is waiting for.
func (s *stream) stop() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = http.NewResponseController(s.x.ResponseWriter).SetWriteDeadline(time.Now())
	}
}

// end lets go of the connection.
func (s *stream) end() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}
