package ws

import (
	"encoding/json"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// outbox is what a connection has to be told, guarded by conn.mu.
//
// Only direct replies are queued, until there are Documents.Replies of them or
// maxReplyBytes; who adds one more waits, which holds back the client whose
// requests they answer. All that is said unasked is kept as state and turned
// into a frame when its turn comes, and broadcasts stay in their document's
// rings: a client that does not read costs nothing but itself.
type outbox struct {
	replies    [][]byte
	replyBytes int // of replies
	ping       bool
	pong       *string // answer to the peer's newest ping, nil: none is owed

	// Unasked.
	renew     bool
	expiring  time.Time // end of the session that was announced, zero: none to tell
	reconnect *time.Duration
	redisUp   bool                   // what the client was told last
	known     *sessionstore.Snapshot // of which the client knows the readable attributes
	newest    *sessionstore.Snapshot // what is to be told, nil when the client knows
	updating  bool                   // its own session_set is under way: first the reply, then others' changes

	// Broadcasts, while joined.
	doc          *document
	seen         Position // history up to here was in a reply
	opCursor     uint64
	presCursor   uint64
	lostPresence bool // since the last sync_request

	parting   bool // drain: closed when there is nothing more to write
	writing   bool // the writer runs
	closeSent bool // nothing more is written
	stopped   bool // the connection has been cleaned up
}

// outgoing is one thing to write: exactly one field is set.
type outgoing struct {
	frames  batch
	text    []byte // one that is too long for a batch
	ping    bool
	pong    *string
	parting bool // all has been written: time to go
	closing *closing
}

// say is one text frame to write.
func say(text []byte) (out outgoing) {
	if out.frames.fitsText(text) {
		out.frames.addText(text)
	} else {
		out.text = text
	}
	return out
}

// full reports whether one more reply has to wait, replies being the bound of
// their number.
func (o *outbox) full(replies int) bool {
	return len(o.replies) >= replies || o.replyBytes >= maxReplyBytes
}

// takeReply removes the oldest reply. Nothing of it stays behind: it may be a
// long one, and the connection idle from now on.
func (o *outbox) takeReply() []byte {
	data := o.replies[0]
	o.replyBytes -= len(data)
	o.replies[0] = nil
	if o.replies = o.replies[1:]; len(o.replies) == 0 {
		o.replies = nil
	}
	return data
}

// repliesOut takes as many replies as go into one write, at least one.
func (o *outbox) repliesOut() outgoing {
	out := say(o.takeReply())
	for out.text == nil && len(o.replies) > 0 && out.frames.fitsText(o.replies[0]) {
		out.frames.addText(o.takeReply())
	}
	return out
}

// reply queues a direct reply, and waits while the queue is full. Nothing is
// queued for a connection that is closing.
func (c *conn) reply(f any) { c.replyRaw(encode(f)) }

func (c *conn) replyRaw(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.full(c.hub.cfg.Documents.Replies) && c.closing == nil {
		c.changed.Wait()
	}
	c.answerLocked(data)
}

// answerLocked queues the reply that a change of the connection's state
// answers with, in one step with it: one more than the bound rather than a
// wait half-way.
func (c *conn) answerLocked(data []byte) {
	if c.closing == nil {
		c.out.replies = append(c.out.replies, data)
		c.out.replyBytes += len(data)
		c.wakeLocked()
	}
}

// retryAfterMS is when a client may try again that is not told a nearer time.
var retryAfterMS = map[ErrorCode]int64{CodeUnavailable: 1000, CodeRateLimited: 5000}

// fail answers with an error frame.
func (c *conn) fail(re string, code ErrorCode, message string) {
	f := errorFrame{Type: "error", Re: re, Code: code, Message: message, RetryAfterMS: retryAfterMS[code]}
	c.hub.metrics.errors.WithLabelValues(string(code)).Inc()
	c.reply(f)
}

// wake has the writer look for something to write. It never blocks.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

func (c *conn) wakeLocked() {
	if c.beginLocked() {
		c.hub.crew.do((*conn).write, c) // finish waits for it
	}
}

// beginLocked reports whether a writer is needed, and marks it as there then.
func (c *conn) beginLocked() bool {
	if c.out.writing || c.out.stopped || c.out.closeSent {
		return false
	}
	c.out.writing = true
	return true
}

// write is the writer: it writes all there is and ends.
func (c *conn) write() {
	for {
		out, deadline, ok := c.next()
		if !ok {
			return
		}
		c.written(out, c.put(out, deadline))
	}
}

// written follows what became of a write.
func (c *conn) written(out outgoing, err error) {
	if err != nil {
		c.close(closeStuck)
		c.stopWriting()
		_ = c.ws.Close() // the reader notices
	} else if out.closing != nil {
		c.stopWriting()
	}
}

func (c *conn) stopWriting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.closeSent = true
}

// put writes one thing to the network.
func (c *conn) put(out outgoing, deadline time.Time) error {
	if out.frames.frames > 0 {
		return c.putFrames(&out.frames, deadline)
	}
	c.writeBy = momentOf(deadline)
	_ = c.ws.SetWriteDeadline(deadline)
	switch {
	case out.closing != nil:
		if out.closing.code == closeAbnormal {
			return nil // there is nobody to tell
		}
		data := websocket.FormatCloseMessage(int(out.closing.code), out.closing.reason)
		return c.ws.WriteControl(websocket.CloseMessage, data, deadline)
	case out.parting:
		c.close(closeRestart)
		return nil
	case out.ping:
		return c.ws.WriteControl(websocket.PingMessage, nil, deadline)
	case out.pong != nil:
		return c.ws.WriteControl(websocket.PongMessage, []byte(*out.pong), deadline)
	default:
		c.bytesOut.Add(int64(len(out.text)))
		return c.ws.WriteMessage(websocket.TextMessage, out.text)
	}
}

// putFrames writes frames and waits for the client, if need be.
func (c *conn) putFrames(b *batch, deadline time.Time) error {
	c.wire.whole.Lock()
	defer c.wire.whole.Unlock()
	n, rest, err := c.wire.tryFrames(b)
	c.bytesOut.Add(int64(n))
	if err != nil || len(rest) == 0 {
		return err
	}
	return c.putRest(rest, deadline)
}

// putRest writes what tryFrames has left. The caller has c.wire.whole.
func (c *conn) putRest(rest []byte, deadline time.Time) error {
	c.hurry(deadline)
	c.bytesOut.Add(int64(len(rest)))
	return c.wire.putRest(rest)
}

// hurry sets the deadline of writes. One that was set a moment ago is good
// enough, and no closing is put off.
func (c *conn) hurry(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by := momentOf(deadline); c.closing == nil && (c.writeBy == 0 || by-c.writeBy > moment(writeTimeout/8)) {
		c.writeBy = by
		_ = c.wire.SetWriteDeadline(deadline)
	}
}

// next picks what to write: pings and pongs, replies, then the close, and the
// time to come back at before it, then what is said unasked, then operations,
// then presence. When there is nothing, the writer has ended.
func (c *conn) next() (out outgoing, deadline time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	deadline = time.Now().Add(c.hub.cfg.patience())
	if c.closing != nil {
		deadline = c.closeBy.time()
	}
	switch {
	case o.closeSent:
	case o.ping && c.closing == nil:
		o.ping = false
		return outgoing{ping: true}, deadline, true
	case o.pong != nil && c.closing == nil:
		out.pong, o.pong = o.pong, nil
		return out, deadline, true
	case len(o.replies) > 0 && (c.closing == nil || c.closing.code != closeAbnormal): // else nobody waits for them
		c.changed.Broadcast()
		return o.repliesOut(), deadline, true
	case c.closing != nil && o.reconnect == nil:
		return outgoing{closing: c.closing}, deadline, true
	default:
		if text := c.unaskedLocked(); text != nil {
			return say(text), deadline, true
		}
		if out, ok = c.broadcastLocked(); ok {
			return out, deadline, true
		}
		if o.parting {
			o.parting = false
			return outgoing{parting: true}, deadline, true
		}
	}
	o.writing = false
	c.changed.Broadcast()
	return outgoing{}, deadline, false
}

// unaskedLocked returns the next frame that nobody asked for, nil when there
// is none. Before authentication there is only reconnect.
func (c *conn) unaskedLocked() []byte {
	o := &c.out
	if o.reconnect != nil {
		after := *o.reconnect
		o.reconnect = nil
		return encode(reconnectFrame{"reconnect", after.Milliseconds()})
	}
	if c.state != stateAuthenticated && c.state != stateJoined {
		return nil
	}
	if up := c.hub.available.Load(); up != o.redisUp {
		o.redisUp = up
		return encode(statusFrame{"status", map[bool]string{true: "up", false: "down"}[up]})
	}
	if o.renew {
		o.renew = false
		return encode(plainFrame{Type: "renew"})
	}
	if !o.expiring.IsZero() {
		in := max(0, time.Until(o.expiring))
		o.expiring = time.Time{}
		return encode(expiringFrame{"session_expiring", in.Milliseconds()})
	}
	if o.newest != nil && !o.updating {
		set, deleted := sessionstore.Diff(c.readable(o.known), c.readable(o.newest))
		o.known, o.newest = o.newest, nil
		if len(set)+len(deleted) > 0 {
			return encode(changed(set, deleted))
		}
	}
	return nil
}

func changed(set map[string]json.RawMessage, deleted []string) changedFrame {
	if set == nil {
		set = map[string]json.RawMessage{}
	}
	if deleted == nil {
		deleted = []string{}
	}
	return changedFrame{"session_changed", set, deleted}
}

// broadcastLocked returns the next broadcasts, as many as go into one write,
// or the notice that some were lost. This is the gate: only joined connections
// get any.
func (c *conn) broadcastLocked() (outgoing, bool) {
	if c.state != stateJoined {
		return outgoing{}, false
	}
	var out outgoing
	for {
		f, lost, cursor := c.out.peek()
		switch {
		case f == nil, out.frames.frames > 0 && (lost > 0 || !out.frames.fits(f.wire) || f.wire == nil):
			return out, out.frames.frames > 0
		case lost > 0:
			*cursor = f.place
			return c.lostLocked(f, lost, cursor), true
		}
		*cursor = f.place + 1
		if f.wire == nil {
			return c.lagged(channelOperations, f.lost, f.position), true
		}
		out.frames.add(f.wire)
	}
}

// peek returns the next broadcast, nil when there is none, how many before it
// are lost, and the cursor that has to move past it: operations come first.
// What history has told already is skipped.
func (o *outbox) peek() (f *frame, lost uint64, cursor *uint64) {
	for {
		f, lost := o.doc.operations.at(o.opCursor)
		if f == nil {
			break
		}
		if lost > 0 || f.wire == nil || f.position.Epoch != o.seen.Epoch || f.position.Seq > o.seen.Seq {
			return f, lost, &o.opCursor
		}
		o.opCursor = f.place + 1
	}
	f, lost = o.doc.presence.at(o.presCursor)
	return f, lost, &o.presCursor
}

// lostLocked is the notice that broadcasts before f are lost.
func (c *conn) lostLocked(f *frame, lost uint64, cursor *uint64) outgoing {
	if cursor == &c.out.presCursor {
		c.out.lostPresence = true
		return c.lagged(channelPresence, lost, f.position)
	}
	before := f.position
	if f.wire != nil {
		before.Seq--
	}
	return c.lagged(channelOperations, lost, before)
}

func (c *conn) lagged(channel string, lost uint64, at Position) outgoing {
	c.hub.metrics.dropped.WithLabelValues(channel).Add(float64(lost))
	return say(encode(laggedFrame{"lagged", channel, lost, at.Epoch, at.Seq}))
}
