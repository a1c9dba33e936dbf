package wsredis

import (
	"strings"
	"time"
)

// All that this package has in Redis. {doc:ID} is the hash tag that keeps a
// document's keys in one slot; Retention counts from the last write, and a
// document with members in it is written to by the tick.
//
//	key                               type    TTL            written by
//	tandem:doc:{doc:ID}               hash    Retention, 1 day while it has no operation
//	                                                         append, history, snapshot, check
//	tandem:log:{doc:ID}               stream  Retention      append
//	tandem:snapshot:{doc:ID}          hash    Retention      snapshot
//	tandem:seen:{doc:ID}:0 … 2        hash    36 hours       append
//	tandem:presence:{doc:ID}          hash    1 hour         announce, reap, check
//	tandem:presence-count:{doc:ID}    string  1 hour         announce, reap, check
//	tandem:replica:{<incarnation>}    string  half of Lease  tick
//	tandem:places:{places}            set     1 hour         places
//	tandem:places:{places}:<incarnation>
//	                                  hash    Lease          places
//
// Channels: tandem:news:{doc:ID} has all announcements of a document in one
// order (operations, presence, resets); tandem:probe:{<incarnation>} is a
// replica talking to itself to hear that its subscription delivers.
const (
	docPrefix      = "tandem:doc:{doc:"
	logPrefix      = "tandem:log:{doc:"
	snapshotPrefix = "tandem:snapshot:{doc:"
	seenPrefix     = "tandem:seen:{doc:"
	presencePrefix = "tandem:presence:{doc:"
	countPrefix    = "tandem:presence-count:{doc:" // of announcements
	leasePrefix    = "tandem:replica:{"
	newsPrefix     = "tandem:news:{doc:"
	probePrefix    = "tandem:probe:{"
	placesSet      = "tandem:places:{places}" // of the keys of the hashes

	presenceLife  = time.Hour // the tick prolongs it at half of it
	placesSetLife = time.Hour // each tick prolongs it
)

// logKeys are the keys of every script on a document's log, in their order.
func logKeys(document string) []string {
	return []string{
		docPrefix + document + "}",
		logPrefix + document + "}",
		snapshotPrefix + document + "}",
		seenPrefix + document + "}:0",
		seenPrefix + document + "}:1",
		seenPrefix + document + "}:2",
	}
}

func presenceKey(document string) string     { return presencePrefix + document + "}" }
func countKey(document string) string        { return countPrefix + document + "}" }
func leaseKey(incarnation string) string     { return leasePrefix + incarnation + "}" }
func placesKey(incarnation string) string    { return placesSet + ":" + incarnation }
func newsChannel(document string) string     { return newsPrefix + document + "}" }
func probeChannel(incarnation string) string { return probePrefix + incarnation + "}" }

// documentOf is the inverse of newsChannel.
func documentOf(channel string) (document string, ok bool) {
	rest, ok := strings.CutPrefix(channel, newsPrefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "}")
}
