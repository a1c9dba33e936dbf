package ws

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// Why a member left a document, as in Departure.Reason.
const (
	leftByRequest = "leave"
	leftClosed    = "closed"
	leftSession   = "session"
	leftReplica   = "replica"
	leftForbidden = "forbidden"
	leftReplaced  = "replaced"
)

// merge collects presence changes so that each connection appears once, with
// what is newest. The zero value is empty. It is not safe for concurrent use.
type merge struct {
	joined, updated map[string]Member
	left            map[string]Departure
}

func (m *merge) join(member Member) {
	m.forget(member.ConnectionID)
	put(&m.joined, member.ConnectionID, member)
}

// update keeps a join that has not been told a join.
func (m *merge) update(member Member) {
	id := member.ConnectionID
	if _, ok := m.joined[id]; ok {
		m.joined[id] = member
		return
	}
	m.forget(id)
	put(&m.updated, id, member)
}

func (m *merge) leave(d Departure) {
	m.forget(d.ConnectionID)
	put(&m.left, d.ConnectionID, d)
}

// add merges a later change.
func (m *merge) add(c PresenceChange) {
	for _, member := range c.Joined {
		m.join(member)
	}
	for _, member := range c.Updated {
		m.update(member)
	}
	for _, d := range c.Left {
		m.leave(d)
	}
}

// addEarlier merges a change that was taken before and could not be told.
func (m *merge) addEarlier(c PresenceChange) {
	later := m.take()
	m.add(c)
	m.add(later)
}

// take returns everything and empties m. The order is that of the
// connection IDs, so that equal changes make equal frames.
func (m *merge) take() PresenceChange {
	c := PresenceChange{Joined: sorted(m.joined), Updated: sorted(m.updated), Left: sorted(m.left)}
	*m = merge{}
	return c
}

func (m *merge) empty() bool { return len(m.joined)+len(m.updated)+len(m.left) == 0 }

func (m *merge) forget(id string) {
	delete(m.joined, id)
	delete(m.updated, id)
	delete(m.left, id)
}

func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = value
}

func sorted[V any](m map[string]V) []V {
	if len(m) == 0 {
		return nil
	}
	values := make([]V, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[key])
	}
	return values
}

// roster is everybody present in a document, by connection ID. Those in away
// are in members too.
type roster struct{ members, away map[string]Member }

func newRoster() roster { return roster{make(map[string]Member), make(map[string]Member)} }

// apply follows a change, and returns what of it is news to clients: they do
// not see that somebody is away, and hear of everybody's leaving once.
func (r roster) apply(c PresenceChange) (news PresenceChange) {
	news.Joined = c.Joined
	for _, m := range c.Joined {
		r.put(m)
	}
	for _, m := range c.Updated {
		if old, known := r.members[m.ConnectionID]; !known || !old.looksLike(m) {
			news.Updated = append(news.Updated, m)
		}
		r.put(m)
	}
	for _, d := range c.Left {
		if _, known := r.members[d.ConnectionID]; known {
			news.Left = append(news.Left, d)
		}
		delete(r.members, d.ConnectionID)
		delete(r.away, d.ConnectionID)
	}
	return news
}

func (r roster) put(m Member) {
	r.members[m.ConnectionID] = m
	if m.Away {
		r.away[m.ConnectionID] = m
	} else {
		delete(r.away, m.ConnectionID)
	}
}

// looksLike reports whether clients see no difference.
func (m Member) looksLike(other Member) bool {
	return m.Color == other.Color && m.UserName == other.UserName && bytes.Equal(m.State, other.State)
}

// differs returns what makes r hold exactly members.
func (r roster) differs(members []Member) PresenceChange {
	var m merge
	present := make(map[string]bool, len(members))
	for _, member := range members {
		present[member.ConnectionID] = true
		old, known := r.members[member.ConnectionID]
		switch {
		case !known:
			m.join(member)
		case old.Away != member.Away || !old.looksLike(member):
			m.update(member)
		}
	}
	for id, member := range r.members {
		if !present[id] {
			m.leave(Departure{Member: member, Reason: leftReplica})
		}
	}
	return m.take()
}

// entry is a member as clients see it: its state is null until it has one.
type entry struct {
	ConnectionID string          `json:"connection_id"`
	UserID       string          `json:"user_id"`
	UserName     string          `json:"user_name"`
	Color        string          `json:"color"`
	State        json.RawMessage `json:"state"`
	Reason       string          `json:"reason,omitempty"`
}

func entryOf(m Member, reason string) entry {
	return entry{m.ConnectionID, m.UserID, m.UserName, m.Color, m.State, reason}
}

func entries(members []Member) []entry {
	list := make([]entry, len(members))
	for i, m := range members {
		list[i] = entryOf(m, "")
	}
	return list
}

// presenceFrame encodes the broadcast of a change.
func presenceFrame(c PresenceChange) []byte {
	left := make([]entry, len(c.Left))
	for i, d := range c.Left {
		left[i] = entryOf(d.Member, d.Reason)
	}
	return encode(struct {
		Type    string  `json:"type"`
		Joined  []entry `json:"joined"`
		Updated []entry `json:"updated"`
		Left    []entry `json:"left"`
	}{"presence", entries(c.Joined), entries(c.Updated), left})
}
