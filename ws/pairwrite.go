package ws

import (
	"time"

	"github.com/gorilla/websocket"
)

// slowWrite is how long a write must have waited for its end to be a sign of
// life: the peer has made room meanwhile.
const slowWrite = 20 * time.Millisecond

// reply queues an error frame for a client of the JSON protocol, and waits
// while the queue is full. Nothing is queued when the connection is closing.
func (c *pairConn) reply(f any) {
	if !c.json {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.replies) >= maxPending && c.closing == nil {
		c.changed.Wait()
	}
	if c.closing == nil {
		c.replies = append(c.replies, encode(f))
		c.wakeWriterLocked()
	}
}

// fail answers with an error frame.
func (c *pairConn) fail(re string, code ErrorCode, message string) {
	c.hub.metrics.errors.WithLabelValues(string(code)).Inc()
	c.reply(errorFrame{Type: "error", Re: re, Code: code, Message: message})
}

func (c *pairConn) wakeWriterLocked() {
	if c.started && !c.writing && c.hasNewsLocked() {
		c.writing = true
		go c.write() // finish waits for it
	}
}

// hasNewsLocked reports whether there is something to write.
func (c *pairConn) hasNewsLocked() bool {
	if c.closeSent {
		return false
	}
	return c.closing != nil || c.ping || len(c.replies) > 0 || len(c.out) > 0 || c.reconnect != nil ||
		c.json && c.redisUp != c.hub.available.Load()
}

// write is the writer: it writes all there is and ends.
func (c *pairConn) write() {
	for {
		next, ok := c.next()
		if !ok {
			return
		}
		began := time.Now()
		err := next.write()
		if err != nil {
			c.close(closeStuck)
		} else if next.closing == nil && time.Since(began) > slowWrite {
			c.extendDeadline()
		}
		if err != nil || next.closing != nil {
			c.mu.Lock()
			c.closeSent = true
			c.mu.Unlock()
		}
		if err != nil {
			_ = c.ws.Close() // the reader notices
		}
	}
}

// pairWrite is one thing to write: a message, a ping or the close.
type pairWrite struct {
	conn     *pairConn
	deadline time.Time
	message  pairOut
	ping     bool
	closing  *closing
}

// next picks what to write: errors, then what the worker has prepared, then
// the close. When there is nothing, the writer has ended.
func (c *pairConn) next() (w pairWrite, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand {
		c.inHand = false
		c.out[0] = pairOut{}
		if c.out = c.out[1:]; len(c.out) == 0 {
			c.out = nil
			c.wakeWorkerLocked()
		}
	}
	// A message may be large and the client slow: it has as long as it has to
	// answer a ping.
	w = pairWrite{conn: c, deadline: time.Now().Add(max(writeTimeout, c.hub.cfg.Heartbeat*5/2))}
	if c.closing != nil {
		w.deadline = c.closeBy
	}
	switch up := c.hub.available.Load(); {
	case c.closeSent:
	case c.ping && c.closing == nil:
		c.ping, w.ping = false, true
		return w, true
	case len(c.replies) > 0:
		w.message.frame, c.replies[0] = c.replies[0], nil
		if c.replies = c.replies[1:]; len(c.replies) == 0 {
			c.replies = nil // one that waits holds no memory
		}
		c.changed.Broadcast()
		return w, true
	case c.reconnect != nil && c.closing == nil:
		w.message.frame, c.reconnect = c.reconnect, nil
		return w, true
	case len(c.out) > 0:
		c.inHand = true
		w.message = c.out[0]
		return w, true
	case c.closing != nil:
		w.closing = c.closing
		return w, true
	case c.json && c.redisUp != up:
		c.redisUp = up
		w.message.frame = encode(statusFrame{"status", map[bool]string{true: "up", false: "down"}[up]})
		return w, true
	}
	c.writing = false
	c.changed.Broadcast()
	return w, false
}

func (w pairWrite) write() error {
	ws := w.conn.ws
	switch {
	case w.closing != nil && w.closing.code == closeAbnormal:
		return nil // there is nobody to tell
	case w.closing != nil:
		data := websocket.FormatCloseMessage(int(w.closing.code), w.closing.reason)
		return ws.WriteControl(websocket.CloseMessage, data, w.deadline)
	case w.ping:
		return ws.WriteControl(websocket.PingMessage, nil, w.deadline)
	}
	kind, data := w.message.render(w.conn.json)
	w.conn.bytesOut.Add(int64(len(data)))
	_ = ws.SetWriteDeadline(w.deadline)
	return ws.WriteMessage(kind, data)
}
