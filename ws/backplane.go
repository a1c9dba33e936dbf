package ws

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Errors of a Backplane. Implementations wrap them; callers use errors.Is.
var (
	// ErrUnavailable: the other side of the backplane did not answer, or it
	// is unknown whether the call took effect. Repeating an Append with the
	// same operation is always safe.
	ErrUnavailable = errors.New("backplane unavailable")

	// ErrConflict: a snapshot lies past the head of the log, in another
	// epoch, or before the snapshot that is kept.
	ErrConflict = errors.New("conflicts with the document's log")
)

// Position names a place in a document's log: the operation Seq in the log's
// life Epoch. Seq 0 is the place before the first operation.
type Position struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Operation is what a client asks to have appended.
type Operation struct {
	ID           string          // unique per user and document, 1 to 64 bytes
	UserID       string          // author
	ConnectionID string          // connection that sent it; empty when published by a backend
	Payload      json.RawMessage // any JSON value
	At           time.Time       // when the replica received it
}

// Ack says where an operation stands in the log. Duplicate means that it had
// been appended before and Position is the place it got then.
type Ack struct {
	Position
	Duplicate bool
}

// Entry is one operation of the log. Frame is the complete broadcast frame,
// encoded once when the operation was appended; nobody changes its bytes.
type Entry struct {
	Seq   uint64
	Frame []byte
}

// History is what a client needs to catch up.
type History struct {
	Epoch       string
	Head        uint64          // seq of the newest operation, 0 when there is none
	SnapshotSeq uint64          // seq the kept snapshot stands for, 0 when there is none
	Snapshot    json.RawMessage // nil: not needed or none kept
	Entries     []Entry         // in order, without a gap, the first right after the position or the snapshot
	Recovered   bool            // false: since was trimmed, in another epoch or past the head; this is everything kept
	More        bool            // the byte limit cut Entries short; go on from the last
}

// Log is the ordered, deduplicated log of every document.
//
// All methods are safe for concurrent use and honour ctx's deadline. They
// return ErrUnavailable when the store cannot be reached.
type Log interface {
	// Append numbers op, stores it and announces it to the receivers of
	// every replica, in one atomic step. An operation with the ID and user
	// of one appended within 24 hours is not appended again. known is the newest
	// position the caller has seen (zero: none): a store that has fallen
	// behind it has lost operations and starts a new epoch.
	Append(ctx context.Context, document string, op Operation, known Position) (Ack, error)

	// History returns what came after since, or with nil the kept snapshot
	// and all after it. Frames add up to maxBytes at most, but one is
	// returned always when there is one.
	History(ctx context.Context, document string, since *Position, maxBytes int) (History, error)

	// KeepSnapshot replaces the kept snapshot and may trim operations that
	// it stands for. ErrConflict when at does not fit the log.
	KeepSnapshot(ctx context.Context, document string, at Position, payload json.RawMessage) error
}

// Member is one connection present in a document.
type Member struct {
	ConnectionID string          `json:"connection_id"`
	UserID       string          `json:"user_id"`
	UserName     string          `json:"user_name"`
	Color        string          `json:"color"`
	State        json.RawMessage `json:"state,omitempty"`

	// Clients are not shown the following.
	Session string `json:"session,omitempty"` // handle of the connection's session
	Away    bool   `json:"away,omitempty"`    // its connection was lost, and another of its session may take its place
}

// Departure is a member that left, and why: "leave", "closed", "session",
// "forbidden" (it may not be there any more), "replaced" (another connection
// of its session took its place), "replica" (its replica died).
type Departure struct {
	Member
	Reason string `json:"reason"`
}

// PresenceChange is all that changed in a document's presence over one tick.
// A connection appears at most once in it.
type PresenceChange struct {
	Joined  []Member    `json:"joined,omitempty"`
	Updated []Member    `json:"updated,omitempty"`
	Left    []Departure `json:"left,omitempty"`
}

// Empty reports that nothing changed.
func (c PresenceChange) Empty() bool {
	return len(c.Joined) == 0 && len(c.Updated) == 0 && len(c.Left) == 0
}

// Presence is who is in which document, over all replicas. The Backplane
// remembers what this replica announced and keeps it alive and refilled; the
// members of a replica that died are announced as left, once, by whichever
// replica finds them.
type Presence interface {
	// Announce stores the change of this replica's own members and tells
	// every replica's receivers, this one's too. Left may also name a member
	// of another replica; that replica no longer keeps it alive then. On
	// error the caller announces the same change again later; that is
	// harmless.
	Announce(ctx context.Context, document string, change PresenceChange) error

	// Members returns everybody present.
	Members(ctx context.Context, document string) ([]Member, error)
}

// Receiver gets what is announced in one document. Its methods are called
// one at a time, must not block and must not call the Backplane.
type Receiver interface {
	// Operation delivers an appended operation. Calls may be missing or
	// repeated, and are ordered by seq only within what arrives; the
	// receiver compares seq with what it has and reads the log for a gap.
	Operation(epoch string, e Entry)

	// Presence delivers a change of any replica's members. When one is lost,
	// a Gap comes within a heartbeat.
	Presence(change PresenceChange)

	// Gap says that announcements may have been lost (the link was cut, the
	// log began a new epoch): read the log and the members again.
	Gap()
}

// Backplane is all that a replica's documents need from the other replicas.
type Backplane interface {
	Log
	Presence

	// Subscribe starts delivery to r. When it returns without error, every
	// operation appended from now on is delivered or covered by a Gap.
	// One subscription a document and replica at most. unsubscribe returns
	// after the last call to r has.
	Subscribe(ctx context.Context, document string, r Receiver) (unsubscribe func(), err error)
}
