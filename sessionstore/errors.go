package sessionstore

import (
	"errors"
	"fmt"
)

// Four different answers to "which session is this?", never folded into one.
// Test them with errors.Is; the text is for logs and never holds a session ID.
var (
	// ErrNotFound: no session has this ID; it was never issued, or its record
	// has been gone for longer than the tombstones are kept.
	ErrNotFound = errors.New("session not found")

	// ErrEnded: the session existed and was ended. An error that matches it
	// is always an *EndedError, which says why.
	ErrEnded = errors.New("session ended")

	// ErrUndecodable: the stored value exists but this serializer cannot read
	// it. Nothing may be written over it.
	ErrUndecodable = errors.New("session value cannot be decoded")

	// ErrUnavailable: Redis did not answer, so nothing is known about the
	// session. The caller answers 503, never "not logged in".
	ErrUnavailable = errors.New("session store unavailable")

	// ErrReserved: an attribute name under "tandem." was written by a caller.
	ErrReserved = errors.New(`attribute names under "tandem." are reserved`)

	// ErrValue: the serializer cannot hold this attribute.
	ErrValue = errors.New("value cannot be stored in a session")

	// ErrChange: a Change makes no sense as a whole; the text says why.
	ErrChange = errors.New("not a change of a session")

	// ErrTooLarge: the serialized session would exceed Config.MaxBytes.
	ErrTooLarge = errors.New("session too large")
)

// Reason tells why a session ended. Its values are the close reasons that
// clients see and the metric labels: a closed set.
type Reason string

// Every reason a session can end for.
const (
	ReasonLogout  Reason = "logout"  // its user logged out
	ReasonRevoked Reason = "revoked" // ended by its user elsewhere, or by an administrator
	ReasonExpired Reason = "expired" // idle or absolute lifetime over
	ReasonGone    Reason = "gone"    // Redis no longer has it and nothing told why
	ReasonRotated Reason = "rotated" // the ID was replaced and its grace is over; the session lives under another ID
)

// EndedError is ErrEnded with its reason.
type EndedError struct{ Reason Reason }

func (e *EndedError) Error() string { return fmt.Sprintf("session ended: %s", e.Reason) }

// Is makes errors.Is(err, ErrEnded) true.
func (e *EndedError) Is(target error) bool { return target == ErrEnded }
