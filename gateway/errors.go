package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// reason says why the gateway answered in a handler's stead or cut a
// connection: a closed set, the metric label and the log's `reason`.
type reason string

const (
	reasonBadPath          reason = "bad_path"          // dot segments or NUL
	reasonMethod           reason = "method"            // CONNECT, TRACE
	reasonFraming          reason = "framing"           // where the request ends is told in two ways
	reasonNoRoute          reason = "no_route"          // no route for this host and path
	reasonLoginRequired    reason = "login_required"    // nobody is logged in
	reasonStore            reason = "store_unavailable" // the session could not be read, and the route needs it
	reasonUndecodable      reason = "undecodable"       // the session cannot be read by this serializer
	reasonSessionEnded     reason = "session_ended"     // while an upstream that writes it was at work
	reasonSessionWrite     reason = "session_write"     // an upstream asked for a change of the session that cannot be made
	reasonDraining         reason = "draining"          // a new socket, while the gateway parts from the others
	reasonConnectFailed    reason = "connect_failed"    // refused or unreachable; nothing was sent
	reasonConnectTimeout   reason = "connect_timeout"   // nothing was sent
	reasonResponseTimeout  reason = "response_timeout"  // no response header in time
	reasonSendTimeout      reason = "send_timeout"      // it stopped taking the request
	reasonBusy             reason = "upstream_busy"     // as many requests under way, or waiting, as there may be
	reasonUpstreamClosed   reason = "upstream_closed"   // closed or reset before the response header
	reasonUpstreamAborted  reason = "upstream_aborted"  // within the response's body; the client's connection is cut too
	reasonUpstreamProtocol reason = "upstream_protocol" // no HTTP response, or an upgrade nobody asked for
	reasonClientBody       reason = "client_body"       // the request's body broke off or was malformed
	reasonClientGone       reason = "client_gone"       // nobody there to answer
	reasonAborted          reason = "aborted"           // a handler cut the connection
	reasonPanic            reason = "panic"             // in a handler

	// Limits on what clients may take.
	reasonRateLimited  reason = "rate_limited"         // more requests of one client than the route allows
	reasonConnections  reason = "too_many_connections" // of one address; closed without an answer
	reasonBodyTooLarge reason = "body_too_large"       // the request's body is longer than the route allows
	reasonBodyTimeout  reason = "body_timeout"         // it came too slowly
	reasonIdle         reason = "idle"                 // a raw TCP session without a byte for too long; cut
)

// answers is what the client is told, in the one place that decides it.
var answers = map[reason]problem.Problem{
	reasonBadPath:          {Status: http.StatusBadRequest, Code: "bad_path", Detail: `The path has a "." or ".." segment or a NUL.`},
	reasonMethod:           {Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "CONNECT and TRACE are not served."},
	reasonFraming:          {Status: http.StatusBadRequest, Code: "framing", Detail: "The request has a Transfer-Encoding together with a Content-Length, or in HTTP/1.0."},
	reasonNoRoute:          {Status: http.StatusNotFound, Code: "no_route", Detail: "Nothing is served at this host and path."},
	reasonLoginRequired:    {Status: http.StatusUnauthorized, Code: "login_required", Detail: "Log in first."},
	reasonStore:            problem.Unavailable("The session store cannot be reached."),
	reasonUndecodable:      {Status: http.StatusInternalServerError, Code: "session_undecodable", Detail: "The stored session cannot be read."},
	reasonSessionEnded:     {Status: http.StatusUnauthorized, Code: "session_ended", Detail: "The session has ended; log in again."},
	reasonSessionWrite:     {Status: http.StatusBadGateway, Code: "session_write", Detail: "The upstream asked for a change of the session that cannot be made. Nothing was changed."},
	reasonDraining:         problem.Unavailable("This replica is about to stop; connect again to reach another one."),
	reasonConnectFailed:    {Status: http.StatusBadGateway, Code: "connect_failed", Detail: "The upstream cannot be reached."},
	reasonConnectTimeout:   {Status: http.StatusGatewayTimeout, Code: "connect_timeout", Detail: "The upstream cannot be reached in time."},
	reasonResponseTimeout:  {Status: http.StatusGatewayTimeout, Code: "response_timeout", Detail: "The upstream did not answer in time."},
	reasonSendTimeout:      {Status: http.StatusGatewayTimeout, Code: "send_timeout", Detail: "The upstream stopped taking the request."},
	reasonBusy:             {Status: http.StatusServiceUnavailable, Code: "upstream_busy", Detail: "The upstream has too much to do; try again.", RetryAfter: 2 * time.Second},
	reasonUpstreamClosed:   {Status: http.StatusBadGateway, Code: "upstream_closed", Detail: "The upstream closed the connection without an answer."},
	reasonUpstreamProtocol: {Status: http.StatusBadGateway, Code: "upstream_protocol", Detail: "The upstream's answer could not be understood."},
	reasonRateLimited:      {Status: http.StatusTooManyRequests, Code: "rate_limited", Detail: "Too many requests in too short a time."},
	reasonBodyTooLarge:     {Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Detail: "The request's body is larger than what is taken here."},
	reasonBodyTimeout:      {Status: http.StatusRequestTimeout, Code: "body_timeout", Detail: "The request's body came too slowly."},
	reasonClientBody:       {Status: http.StatusBadRequest, Code: "client_body", Detail: "The request's body ended early or is malformed."},
	reasonPanic:            {Status: http.StatusInternalServerError, Code: "internal"},
}

// refuse answers the request for the given reason; cause is for the log. When
// something has been sent already, or nobody is there to be told, it cuts the
// connection instead: an error is told once or not at all.
func (x *exchange) refuse(r *http.Request, why reason, cause error) {
	x.reason, x.cause = why, cause
	p, told := answers[why]
	if x.hijacked {
		return // the handler closes the connection
	}
	if x.status != 0 || !told {
		panic(http.ErrAbortHandler)
	}
	if (why == reasonClientBody || why == reasonBodyTooLarge || why == reasonBodyTimeout) && r.ProtoMajor == 1 {
		x.closes = true // where the next request begins is unknown
	}
	p.RequestID = x.id[0]
	if x.wait > 0 {
		p.RetryAfter = x.wait
	}
	problem.Respond(x, r, p)
}

// dialError is a failed connect: nothing was sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// failureOf classifies what a request or a connect to an upstream ended with.
func failureOf(ctx context.Context, body *clientBody, err error) reason {
	var dial *dialError
	var send *sendTimeout
	var network net.Error
	timeout := errors.As(err, &network) && network.Timeout()
	why, bodyFailed := body.failed()
	switch {
	case bodyFailed && why != reasonClientBody:
		return why // what was too much or too slow may well end the connection
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return reasonClientGone
	case bodyFailed:
		return why
	case errors.As(err, &dial) && timeout:
		return reasonConnectTimeout
	case errors.As(err, &dial):
		return reasonConnectFailed
	case errors.Is(err, errBusy):
		return reasonBusy
	case errors.As(err, &send):
		return reasonSendTimeout
	case timeout:
		return reasonResponseTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reasonUpstreamClosed
	default:
		return reasonUpstreamProtocol
	}
}
