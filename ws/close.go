package ws

import "github.com/seed-6230208e/tandem/sessionstore"

// CloseCode is the code of a WebSocket close frame.
type CloseCode int

// Every code that Tandem closes a socket with. The comment says when, and
// whether the client should come back.
const (
	CloseGoingAway     CloseCode = 1001 // the server stops without draining; come back
	CloseTooBig        CloseCode = 1009 // a message over max_message; do not come back
	CloseRestart       CloseCode = 1012 // drained for a restart; come back
	CloseProtocol      CloseCode = 4400 // one bad frame after the other; do not come back
	CloseUnauthorized  CloseCode = 4401 // not logged in, or the session ended; log in first
	CloseForbidden     CloseCode = 4403 // logged in, but not allowed; do not come back
	CloseAuthTimeout   CloseCode = 4408 // no successful authenticate in time; do not come back
	CloseSideTaken     CloseCode = 4409 // the side of a pair is held by somebody else; do not come back
	CloseTooMuch       CloseCode = 4429 // over a rate or connection limit; come back later
	CloseRedisAwayLong CloseCode = 4503 // the session could not be verified for too long; come back
)

// closeAbnormal stands for a connection that ended without a close frame. It
// is counted and never sent.
const closeAbnormal CloseCode = 1006

// Retry reports whether a client that was closed with c should come back, by
// itself, after the delay it was told or a jittered back-off.
func (c CloseCode) Retry() bool {
	switch c {
	case CloseGoingAway, closeAbnormal, CloseRestart, CloseTooMuch, CloseRedisAwayLong:
		return true
	}
	return false
}

// many reports whether a close with c comes to many clients at once, who must
// not all come back at once: each is told a delay of its own before it.
func (c CloseCode) many() bool {
	return c == CloseGoingAway || c == CloseRestart || c == CloseRedisAwayLong
}

// closing is a decision to close: the code and the reason, which is sent,
// logged and, being from a closed set, a metric label.
type closing struct {
	code   CloseCode
	reason string
}

// Every close that is not the end of a session.
var (
	closeGoingAway   = closing{CloseGoingAway, "going away"}
	closeTooBig      = closing{CloseTooBig, "message too big"}
	closeRestart     = closing{CloseRestart, "restart"}
	closeAbuse       = closing{CloseProtocol, "protocol abuse"}
	closeLogin       = closing{CloseUnauthorized, "login required"}
	closeForbidden   = closing{CloseForbidden, "session cannot be read"}
	closeAuthTimeout = closing{CloseAuthTimeout, "authentication timed out"}
	closeRate        = closing{CloseTooMuch, "rate limit"}
	closeCount       = closing{CloseTooMuch, "too many connections"}
	closeUnverified  = closing{CloseRedisAwayLong, "session not verified"}

	// Ends that the server learns of; nothing is sent.
	closeByPeer   = closing{closeAbnormal, "closed by peer"}
	closeByReload = closing{closeAbnormal, "peer going away"} // a page that is left, or loaded again
	closeLost     = closing{closeAbnormal, "connection lost"}
	closeStuck    = closing{closeAbnormal, "write failed"}
)

// closeEnded is the close for the end of a session.
func closeEnded(reason sessionstore.Reason) closing {
	switch reason {
	case sessionstore.ReasonLogout, sessionstore.ReasonRevoked, sessionstore.ReasonExpired, sessionstore.ReasonGone:
		return closing{CloseUnauthorized, string(reason)}
	default:
		// An ID that was replaced: its session lives on elsewhere, but
		// whoever shows the old ID is not logged in.
		return closeLogin
	}
}
