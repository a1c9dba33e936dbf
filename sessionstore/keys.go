package sessionstore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Every key that this package writes. P is Config.KeyPrefix, and <ref> the
// session ID, or with Config.HashIDs its SHA-256 in hex. The keys of one ref
// share its hash tag and so a Cluster slot, which lets one script change them
// together. TestKeyTable holds the table to what is found in Redis.
//
//	key                           type    what                                        TTL                        written by
//	P<ref>                        string  the attributes, as redisstore/v9 writes     min(idle, absolute left);  create, save, touch,
//	                                      them; with Config.Seal sealed               provisional: 1 min         end, rotate
//	tandem:end:{P<ref>}           string  tombstone: "logout", "revoked", "expired",  absolute timeout           end, rotate
//	                                      or "rotated <new ref>"
//	tandem:next:{P<ref>}          string  new ID, for clients that still send the     grace                      rotate
//	                                      old one; with HashIDs veiled by that;
//	                                      none after a login
//	tandem:sid:{P<ref>}           string  "<handle> <created>": what this ID was      as the session             create, save, touch
//	                                      given, should a blind write drop it
//	tandem:wrote:{P<ref>}:<token> string  this request took effect: clients repeat    30 s                       create, save, rotate
//	                                      commands whose reply was lost
//	tandem:hold:{P<ref>}          string  name of the rotation that holds up savers   1 s                        rotate, release
//	tandem:handle:{<handle>}      hash    id (the ref), user, user_name, created,     absolute timeout           record
//	                                      seen (Unix ms), ua, addr
//	tandem:user:{<b64url(user)>}  zset    handle → end of absolute life, Unix ms      absolute timeout           index
//	tandem:ticket:{<sha256>}      string  the ID, veiled by the ticket; <sha256> is   30 s                       IssueTicket
//	                                      of the ticket
//	tandem:ticket:{<sha256>}:<token> string  the same, taken by this request          what is left of them       redeem
//
// The successor in a tombstone outlives the grace on purpose. It is followed
// by code that acts on the session itself (ending it, sockets bound to it),
// never for a client that presents the old ID; so a revocation finds the
// session however old the ID is that it begins with, and a record that names
// an old place is late, not wrong. Veiled is what only its own client can
// open: see place.go.
//
// The channel tandem:sessions carries news (news.go) and never an ID.
const (
	newsChannel = "tandem:sessions"

	provisionalTTL = time.Minute // of a value that a rotation prepares
	wroteTTL       = 30 * time.Second
	ticketTTL      = 30 * time.Second
	holdTTL        = time.Second // longer than an attempt takes; should its replica die, savers wait for that

	endKeyPrefix  = "tandem:end:{"
	userKeyPrefix = "tandem:user:{"
)

func (f *Factory) valueKey(r ref) string { return f.cfg.KeyPrefix + string(r) }
func (f *Factory) endKey(r ref) string   { return endKeyPrefix + f.cfg.KeyPrefix + string(r) + "}" }
func (f *Factory) nextKey(r ref) string  { return "tandem:next:{" + f.cfg.KeyPrefix + string(r) + "}" }
func (f *Factory) sidKey(r ref) string   { return "tandem:sid:{" + f.cfg.KeyPrefix + string(r) + "}" }

func (f *Factory) holdKey(r ref) string { return "tandem:hold:{" + f.cfg.KeyPrefix + string(r) + "}" }

// readKeys is valueKey and endKey: the one is a part of the other.
func (f *Factory) readKeys(r ref) (value, end string) {
	end = f.endKey(r)
	return end[len(endKeyPrefix) : len(end)-1], end
}

func (f *Factory) wroteKey(r ref, token string) string {
	return "tandem:wrote:{" + f.cfg.KeyPrefix + string(r) + "}:" + token
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

// heir is the ref that replaced this one.
func (t tombstone) heir() (heir ref, ok bool) {
	word, r, _ := strings.Cut(string(t), " ")
	return ref(r), Reason(word) == ReasonRotated && isRef(r)
}

// formatTime writes t as attributes and marks hold it: RFC 3339, UTC,
// milliseconds.
func formatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
