package ws

import (
	"context"
	"errors"
	"time"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Action is what somebody wants to do with a document.
type Action string

// Every Action.
const (
	ActionRead  Action = "read"  // join it: get its operations, see who is there and be seen
	ActionWrite Action = "write" // append operations, leave snapshots
)

// ErrForbidden is an Authorizer's no.
var ErrForbidden = errors.New("forbidden")

// Access is a question to an Authorizer.
type Access struct {
	Session  *sessionstore.Snapshot // newest known state of the asker's session; it has a user
	Document string
	Action   Action
}

// Authorizer decides who may do what with which document. Backends that
// publish over the admin API are not subject to it.
type Authorizer interface {
	// Authorize returns nil for yes, an error that wraps ErrForbidden for
	// no, and any other when it is not known; nobody gets in then either.
	// A yes holds until the session changes and, when until is not zero,
	// until that time; then it is asked again. It honours ctx and is safe
	// for concurrent use.
	Authorize(ctx context.Context, a Access) (until time.Time, err error)
}

// permit is a yes that a connection was given.
type permit struct {
	of    *sessionstore.Snapshot // state of the session it was given for; nil: none was
	until time.Time              // zero: as long as the session does not change
}

func (p permit) valid(s *sessionstore.Snapshot) bool {
	return p.of == s && (p.until.IsZero() || time.Now().Before(p.until))
}

// may returns nil when the connection may do that now, as it was told before
// or asks now.
func (c *conn) may(action Action) error {
	rule := c.hub.cfg.Authorizer
	if rule == nil {
		return nil
	}
	p := &c.mayRead
	if action == ActionWrite {
		p = &c.mayWrite
	}
	s := c.binding.Snapshot()
	if p.valid(s) {
		return nil
	}
	*p = permit{}
	ctx, cancel := c.call()
	defer cancel()
	until, err := rule.Authorize(ctx, Access{Session: s, Document: c.document, Action: action})
	if err == nil {
		*p = permit{s, until}
	}
	return err
}

// refuseAccess answers what may has not allowed.
func (c *conn) refuseAccess(re string, action Action, err error) {
	if errors.Is(err, ErrForbidden) {
		c.fail(re, CodeForbidden, "this session may not "+string(action)+" this document")
		return
	}
	c.fail(re, CodeUnavailable, "whether this session may "+string(action)+" this document is not known at the moment; send it again later")
}

// recheck has the worker ask again whether the connection may be where it
// is. It does not block.
func (c *conn) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recheckLocked()
}

func (c *conn) recheckLocked() {
	if c.hub.cfg.Authorizer != nil && c.closing == nil {
		c.doubt = true
		c.workLocked()
	}
}

// reauthorize takes the connection out of a document that it may no longer
// read, and says why. A no and a don't know differ in what the client is
// told.
func (c *conn) reauthorize() {
	if c.doc == nil {
		return
	}
	err := c.may(ActionRead)
	switch {
	case c.isClosing():
	case err == nil:
		c.armRecheck()
	default:
		c.logger().Info("a member may not stay", "err", err)
		c.mu.Lock()
		c.setStateLocked(stateAuthenticated)
		c.mu.Unlock()
		c.leaveDocument(leftForbidden)
		c.refuseAccess("", ActionRead, err)
		c.reply(plainFrame{Type: "left_document"})
	}
}

// armRecheck asks again when the permit to read is over.
func (c *conn) armRecheck() {
	until := c.mayRead.until
	if until.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch in := time.Until(until); {
	case c.closing != nil:
	case c.again == nil:
		c.again = time.AfterFunc(in, c.recheck)
	default:
		c.again.Reset(in)
	}
}
