package sessionstore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Every key that this package writes. P is Config.KeyPrefix; the keys of one
// ID share its hash tag and so a Cluster slot, which lets one script change
// them together. TestKeyTable holds the table to what is found in Redis.
//
//	key                          type    what                                        TTL                        written by
//	P<ID>                        string  the attributes, as redisstore/v9 writes     min(idle, absolute left);  create, save, touch,
//	                                     them                                        provisional: 1 min         end, rotate
//	tandem:end:{P<ID>}           string  tombstone: "logout", "revoked", "expired",  absolute timeout           end, rotate
//	                                     or "rotated <new ID>"
//	tandem:next:{P<ID>}          string  new ID, for clients that still send the     grace                      rotate
//	                                     old one; none after a login
//	tandem:sid:{P<ID>}           string  "<handle> <created>": what this ID was      as the session             create, save, touch
//	                                     given, should a blind write drop it
//	tandem:wrote:{P<ID>}:<token> string  this request took effect: clients repeat    30 s                       create, save, rotate
//	                                     commands whose reply was lost
//	tandem:handle:{<handle>}     hash    id, user, user_name, created, seen (Unix    absolute timeout           record
//	                                     ms), ua, addr
//	tandem:user:{<b64url(user)>} zset    handle → end of absolute life, Unix ms      absolute timeout           index
//	tandem:ticket:{<sha256>}     string  handle; <sha256> is of the ticket           30 s, read once            IssueTicket
//
// The successor in a tombstone outlives the grace on purpose. It is followed
// by code that acts on the session itself (ending it, sockets bound to it),
// never for a client that presents the old ID; so a revocation finds the
// session however old the ID is that it begins with, and a record that names
// an old ID is late, not wrong.
//
// The channel tandem:sessions carries news (news.go) and never an ID.
const (
	newsChannel = "tandem:sessions"

	provisionalTTL = time.Minute // of a value that a rotation prepares
	wroteTTL       = 30 * time.Second
	ticketTTL      = 30 * time.Second

	userKeyPrefix = "tandem:user:{"
)

func (f *Factory) valueKey(id string) string { return f.cfg.KeyPrefix + id }
func (f *Factory) endKey(id string) string   { return "tandem:end:{" + f.cfg.KeyPrefix + id + "}" }
func (f *Factory) nextKey(id string) string  { return "tandem:next:{" + f.cfg.KeyPrefix + id + "}" }
func (f *Factory) sidKey(id string) string   { return "tandem:sid:{" + f.cfg.KeyPrefix + id + "}" }

func (f *Factory) wroteKey(id, token string) string {
	return "tandem:wrote:{" + f.cfg.KeyPrefix + id + "}:" + token
}

func handleKey(handle string) string { return "tandem:handle:{" + handle + "}" }

func userKey(userID string) string {
	return userKeyPrefix + base64.RawURLEncoding.EncodeToString([]byte(userID)) + "}"
}

// userOfKey is the inverse of userKey.
func userOfKey(key string) (userID string, ok bool) {
	encoded, ok := strings.CutPrefix(key, userKeyPrefix)
	if !ok {
		return "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(encoded, "}"))
	return string(b), err == nil && len(b) > 0
}

func ticketKey(ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return "tandem:ticket:{" + hex.EncodeToString(sum[:]) + "}"
}

// mark is the value of the sid key.
func mark(handle string, created time.Time) string {
	return handle + " " + formatTime(created)
}

func parseMark(m string) (handle string, created time.Time, err error) {
	handle, at, _ := strings.Cut(m, " ")
	created, err = time.Parse(time.RFC3339, at)
	if err != nil || !ValidHandle(handle) {
		return "", time.Time{}, fmt.Errorf("sessionstore: sid key holds %d bytes of something else", len(m))
	}
	return handle, created, nil
}

// tombstone is the value of the end key; empty: none.
type tombstone string

// reason is why the session ended; what no version wrote counts as revoked.
func (t tombstone) reason() Reason {
	word, _, _ := strings.Cut(string(t), " ")
	switch r := Reason(word); r {
	case ReasonLogout, ReasonExpired, ReasonRotated:
		return r
	default:
		return ReasonRevoked
	}
}

// heir is the ID that replaced this one.
func (t tombstone) heir() (id string, ok bool) {
	word, id, _ := strings.Cut(string(t), " ")
	return id, Reason(word) == ReasonRotated && ValidID(id)
}

// formatTime writes t as attributes and marks hold it: RFC 3339, UTC,
// milliseconds.
func formatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
