package ws

import (
	"context"
	"errors"
)

// ErrSideTaken: somebody else holds the side of the pair.
var ErrSideTaken = errors.New("the side is taken")

// Side is one of the two places of a pair.
type Side string

// The sides of a pair.
const (
	Left  Side = "left"
	Right Side = "right"
)

// Other is the side across.
func (s Side) Other() Side {
	if s == Left {
		return Right
	}
	return Left
}

// PairMode says what becomes of the messages in a pair. It is fixed when the
// pair is made.
type PairMode string

// The modes of a pair.
const (
	ModeEcho  PairMode = "echo"  // a message is answered, numbered
	ModeRelay PairMode = "relay" // a message goes to the counterpart
)

// Bounds of what is under way from one side to the other. A batch has
// pairBatchBytes of messages at most, or one message, and the plane keeps
// PairWindow batches that the other side has not taken: what a slow receiver
// costs is bounded, wherever it is connected.
const (
	PairWindow     = 4
	pairBatchBytes = 64 << 10
)

// PairSeat says who wants to sit where.
type PairSeat struct {
	Pair       string
	Side       Side
	Mode       PairMode // of the pair, should this be the first to come
	Connection string   // unique over all replicas and times
	Session    string   // handle; the same session takes over at once. Empty: never
}

// PairState is what the store says about a pair, seen from one of its sides.
//
// Batches are counted in each direction, from 1, over the life of the pair.
type PairState struct {
	Unique      string // names the pair's life; made once
	Mode        PairMode
	Counterpart uint64 // number of the counterpart's arrival, 0: nobody is there

	Sent  uint64 // batches that this side has posted
	Taken uint64 // batches for this side that it has taken, or never will

	Incoming  uint64 // batches that were posted for this side
	Delivered uint64 // batches of this side that a counterpart has taken, or never will

	// The batches of this side that were lost the last time that a counterpart
	// left before it took all that was posted for it. 0: none were.
	LostFrom, LostTo uint64
}

// PairListener hears of its side of a pair. Its methods must not block and must
// not call the plane. PairChanged and PairLost are called one at a time and in
// order, PairPosted at any time; one call may still come after Release.
type PairListener interface {
	// PairChanged brings the newest state, or one that is known: states in
	// between may have been left out. The side may have been lost and taken
	// again meanwhile; then Counterpart or Unique differ.
	PairChanged(PairState)

	// PairPosted hints that a batch was posted for this side.
	PairPosted()

	// PairLost is the last call: somebody else holds the side now.
	PairLost()
}

// PairMessage is one message on its way.
type PairMessage struct {
	Kind PairKind
	Data []byte // not changed by anybody
}

// PairKind says how a message was sent.
type PairKind byte

// The kinds of a message.
const (
	PairText   PairKind = 't' // a text frame
	PairBinary PairKind = 'b' // a binary frame
	PairValue  PairKind = 'v' // a JSON value
)

// PairBatch is messages that were posted together. The first has the index
// First, the others follow.
type PairBatch struct {
	First    uint64
	Messages []PairMessage
}

// PairPost asks for a batch to be posted. It counts only for the pair, the
// counterpart and the place in the order that the caller believes in, so that
// no message goes to somebody whom the caller has not heard of, or twice.
type PairPost struct {
	Unique   string
	To       uint64        // PairState.Counterpart
	Number   uint64        // of this batch: one more than the last
	Count    int           // of messages
	Messages []PairMessage // nil in echo mode, where they are only counted
}

// PairReceipt is the answer to a post.
type PairReceipt struct {
	First     uint64 // index of the first message
	Delivered uint64 // batches that the counterpart has taken, 0 when it has left. PairWindow behind: PairChanged tells when there is room
}

// PairPlane is all that a replica's pairs need from the store they share: who
// sits where, one counter, and what is under way from side to side.
//
// Methods are safe for concurrent use and honour ctx's deadline. Those that
// return ErrUnavailable may have taken effect.
type PairPlane interface {
	// Claim takes the seat, and makes the pair if there is none. A seat held
	// by a replica that died, or by the same session, is taken over. The
	// listener is called from then on, first with the state, from within
	// Claim. ErrSideTaken when somebody else holds the side.
	//
	// As long as the claim is held the plane repairs it: a pair that was lost
	// is made again with another Unique.
	Claim(ctx context.Context, seat PairSeat, l PairListener) (PairClaim, error)

	// Look returns what Claim would for this seat, and takes nothing.
	Look(ctx context.Context, seat PairSeat) error
}

// PairClaim is a seat that is held. Post and Take are each for one caller at
// a time; repeating a call that failed is always safe.
type PairClaim interface {
	// Post numbers the messages and, in relay mode, stores the batch for the
	// counterpart. ok is false, and nothing was posted, when the caller has to
	// wait for PairChanged: the pair is not what it believes, or there are
	// PairWindow batches under way. A batch that has been posted is not posted
	// again; its receipt is returned again.
	Post(ctx context.Context, p PairPost) (r PairReceipt, ok bool, err error)

	// Take confirms that the batches up to number have reached the client and
	// returns the next one with its number. No messages: there is none yet,
	// and all up to the number returned are settled. ok is false when the
	// caller has to wait for PairChanged.
	Take(ctx context.Context, unique string, number uint64) (next uint64, b PairBatch, ok bool, err error)

	// Refresh has PairChanged called with the state as it is now, as soon as
	// the store can be read. It does not block.
	Refresh()

	// Release frees the seat and tells the counterpart. If the store cannot be
	// reached, that is done as soon as it can. The claim is not used after.
	Release(ctx context.Context)
}
