package ws

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// read is the reader: it runs until the connection is over, then cleans up.
func (c *pairConn) read() {
	defer c.finish()
	for !c.isClosing() {
		c.extendDeadline()
		kind, data, err := readFrame(c.ws, c.hub.cfg.Documents.MaxMessage)
		switch {
		case errors.Is(err, errTooLarge):
			c.fail("", CodeTooLarge, "a frame may have at most "+string(encode(c.hub.cfg.Documents.MaxMessage))+" bytes")
			c.close(closeTooBig)
		case err != nil:
			c.close(lostBy(err))
			return
		default:
			c.bytesIn.Add(int64(len(data)))
			c.receive(kind, data)
		}
	}
	// The peer answers our close frame, or hangs up, or is cut off when
	// closeTimeout is over.
	for {
		if _, _, err := c.ws.NextReader(); err != nil {
			return
		}
	}
}

func (c *pairConn) receive(kind int, data []byte) {
	if c.json {
		c.receiveFrame(kind, data)
		return
	}
	// A plain client cannot be told that a message was refused. It is held
	// back to its rate instead, and nothing is lost.
	for {
		wait, ok := c.spend(time.Now())
		if ok {
			break
		}
		select {
		case <-time.After(wait):
		case <-c.ctx.Done():
			return
		}
	}
	c.hub.metrics.frames.WithLabelValues(typeMessage).Inc()
	m := PairMessage{Kind: PairText, Data: data}
	if kind == websocket.BinaryMessage {
		m.Kind = PairBinary
	}
	if !c.takes(m) {
		c.close(closeAbuse)
		return
	}
	c.enqueue(earlyMessage{PairMessage: m})
}

// takes reports whether the pair has a use for a plain message.
func (c *pairConn) takes(m PairMessage) bool {
	if m.Kind == PairText {
		return utf8.Valid(m.Data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Mode == ModeRelay
}

// spend uses one frame of the connection's rate and of its user's.
func (c *pairConn) spend(now time.Time) (wait time.Duration, ok bool) {
	if wait, ok = c.frames.take(now); ok {
		wait, ok = c.shared.frame(now)
	}
	return wait, ok
}

// receiveFrame takes a frame of the JSON protocol.
func (c *pairConn) receiveFrame(kind int, data []byte) {
	req, err := decodeRequest(data)
	if kind != websocket.TextMessage {
		err = errors.New("text frames are expected, not binary ones")
	}
	now := time.Now()
	if wait, ok := c.spend(now); !ok {
		c.refuse(req.ID, wait, now)
		return
	}
	var value []byte
	if err == nil && req.Type == typeMessage {
		value, err = messageData(req)
	}
	switch {
	case err != nil:
		c.hub.metrics.frames.WithLabelValues("bad").Inc()
		c.badFrame(req.ID, CodeBadMessage, err.Error())
	case req.Type != typeMessage:
		c.hub.metrics.frames.WithLabelValues("unknown").Inc()
		c.badFrame(req.ID, CodeUnknownType, "unknown type "+string(encode(shorten(req.Type))))
	default:
		c.hub.metrics.frames.WithLabelValues(typeMessage).Inc()
		c.bad = 0
		c.enqueue(earlyMessage{PairMessage{PairValue, value}, req.ID})
	}
}

// refuse answers a frame over the rate limit, and closes when the client does
// not slow down.
func (c *pairConn) refuse(re string, wait time.Duration, now time.Time) {
	c.hub.metrics.errors.WithLabelValues(string(CodeRateLimited)).Inc()
	c.reply(errorFrame{
		Type: "error", Re: re, Code: CodeRateLimited,
		Message: "too many frames; this one was not processed", RetryAfterMS: max(1, wait.Milliseconds()),
	})
	if c.strain.refused(now) {
		c.close(closeRate)
	}
}

// badFrame answers a frame that no client should send, and loses patience
// after too many.
func (c *pairConn) badFrame(re string, code ErrorCode, message string) {
	c.fail(re, code, message)
	if c.bad++; c.bad >= maxBadFrames {
		c.close(closeAbuse)
	}
}

// enqueue keeps a message until it is posted, and waits while there is no room.
func (c *pairConn) enqueue(m earlyMessage) {
	if c.binding != nil {
		c.binding.Touch()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.bytes > 0 && c.bytes+m.cost() > maxEarly && c.closing == nil {
		c.changed.Wait()
	}
	// What was received before a client went is posted still.
	if c.closing == nil || c.closing.code == closeAbnormal {
		c.early = append(c.early, m)
		c.bytes += m.cost()
		c.wakeWorkerLocked()
	}
}

// extendDeadline gives the peer 2.5 heartbeats to show life.
func (c *pairConn) extendDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		_ = c.ws.SetReadDeadline(time.Now().Add(c.hub.cfg.Heartbeat * 5 / 2))
	}
}
