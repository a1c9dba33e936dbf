package wsredis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/seed-6230208e/tandem/ws"
)

// An announcement on a document's channel is one JSON object. An operation's
// is its broadcast frame as it is; only its head is read here.
//
//	{"type":"operation","epoch":…,"seq":…,…}
//	{"number":…,"type":"presence","replica":…,"joined":[…],"updated":[…],"left":[…]}
//	{"type":"reset","epoch":…}                a new epoch began
type announcement struct {
	kind     string // kindOperation, …
	at       ws.Position
	frame    []byte // operation
	replica  string // presence: incarnation whose members these are
	number   uint64 // presence: without a gap in a document
	first    bool   // presence: after none, or after the numbers were lost
	presence ws.PresenceChange
}

const (
	kindOperation = "operation"
	kindPresence  = "presence"
	kindReset     = "reset"
	kindInvalid   = "invalid"
)

// presenceMessage is the announcement of a presence change, without the number
// that Lua puts in front. Lua writes its like, with left only, in reap.lua.
type presenceMessage struct {
	Type    string `json:"type"`
	Replica string `json:"replica"`
	ws.PresenceChange
}

// parseAnnouncement decodes what came over a document's channel.
func parseAnnouncement(payload []byte) (announcement, error) {
	if at, ok := ws.ParseOperationHead(payload); ok {
		return announcement{kind: kindOperation, at: at, frame: payload}, nil
	}
	var m struct {
		presenceMessage
		Number uint64 `json:"number"`
		First  bool   `json:"first"`
		Epoch  string `json:"epoch"`
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return announcement{}, fmt.Errorf("announcement: %w", err)
	}
	switch {
	case m.Type == kindPresence:
		return announcement{kind: kindPresence, replica: m.Replica, number: m.Number, first: m.First, presence: m.PresenceChange}, nil
	case m.Type == kindReset && m.Epoch != "":
		return announcement{kind: kindReset, at: ws.Position{Epoch: m.Epoch}}, nil
	}
	return announcement{}, errors.New("announcement of an unknown type")
}

// presentMember is a field's value in the presence hash.
type presentMember struct {
	Replica string    `json:"replica"`
	Member  ws.Member `json:"member"`
}

// encode writes JSON without escaping for HTML, which nothing here is.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
