package sessionstore

import (
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Snapshot is one state of a session. It does not change and is safe for
// concurrent use.
type Snapshot struct {
	// Fixed after construction.
	ref                       ref
	handle, userID, userName  string
	created, expires, idleEnd time.Time
	remembered                bool
	held                      string // as stored
	raw                       string // what it shows
	codec                     codec

	once  sync.Once
	attrs attributes // decoded from raw by the first who looks, shared with no Session
}

// Handle returns the session's handle.
func (s *Snapshot) Handle() string { return s.handle }

// UserID returns the ID of the user who is logged in, or nothing.
func (s *Snapshot) UserID() string { return s.userID }

// UserName returns the name of the user who is logged in.
func (s *Snapshot) UserName() string { return s.userName }

// ExpiresAt is the end of the session's absolute lifetime.
func (s *Snapshot) ExpiresAt() time.Time { return s.expires }

// IdleExpiresAt is when the session ends without further activity, as far as
// was known when the snapshot was taken.
func (s *Snapshot) IdleExpiresAt() time.Time { return s.idleEnd }

// endingAt is the same state with more time, or less.
func (s *Snapshot) endingAt(idleEnd time.Time) *Snapshot {
	return &Snapshot{
		ref: s.ref, handle: s.handle, userID: s.userID, userName: s.userName,
		created: s.created, expires: s.expires, idleEnd: idleEnd,
		remembered: s.remembered, held: s.held, raw: s.raw, codec: s.codec,
	}
}

// JSON returns an attribute as JSON, like [Session.JSON]. The caller must
// not modify the bytes.
func (s *Snapshot) JSON(name string) (json.RawMessage, bool) {
	cell, ok := s.attributes().find(named(name))
	if !ok {
		return nil, false
	}
	return s.codec.json(cell)
}

// Names returns the names of all attributes, sorted, without reserved ones.
func (s *Snapshot) Names() []string {
	var names []string
	for k := range s.attributes().all() {
		if k.other == nil && !reserved(k.name) {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// Readable returns the attributes whose names match p and that have a form
// in JSON; never a reserved one. The caller must not modify their bytes.
func (s *Snapshot) Readable(p Patterns) map[string]json.RawMessage {
	readable := map[string]json.RawMessage{}
	for k, c := range s.attributes().all() {
		if k.other == nil && p.Match(k.name) {
			if raw, ok := s.codec.json(c); ok {
				readable[k.name] = raw
			}
		}
	}
	return readable
}

// record is what is kept under the session's handle. What is known of the
// client stays as it was.
func (s *Snapshot) record(seen time.Time) record {
	return record{
		ref: s.ref, handle: s.handle, userID: s.userID, userName: s.userName,
		created: s.created, seen: seen,
	}
}

func (s *Snapshot) attributes() attributes {
	s.once.Do(func() {
		if s.raw != "" {
			s.attrs, _ = s.codec.decode(s.raw) // was decoded before
		}
	})
	return s.attrs
}

// Diff tells what to set and what to delete, sorted, to get from old to new.
// Equal values may be written differently.
func Diff(old, new map[string]json.RawMessage) (set map[string]json.RawMessage, deleted []string) {
	set = map[string]json.RawMessage{}
	for name, raw := range new {
		if was, ok := old[name]; !ok || !equalJSON(string(was), string(raw)) {
			set[name] = raw
		}
	}
	for name := range old {
		if _, ok := new[name]; !ok {
			deleted = append(deleted, name)
		}
	}
	slices.Sort(deleted)
	return set, deleted
}
