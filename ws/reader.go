package ws

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/gorilla/websocket"
)

// maxPending bounds the requests that were read and wait for their turn.
// When it is reached nothing more is read: TCP holds the client back.
const maxPending = 32

// awaitNext has what comes next read, whenever that is. Hub.Close waits for it.
func (c *conn) awaitNext() {
	if c.wire.socket != nil && c.in.Buffered() == 0 {
		c.in.giveBack()
	}
	go c.read()
}

// read waits for a frame on the smallest stack there is, and has it read by
// somebody whose stack has grown: most connections are idle most of the time.
func (c *conn) read() {
	if c.wire.socket != nil && c.in.Buffered() == 0 {
		awaitInput(c.wire.socket)
	}
	c.hub.crew.do((*conn).readNext, c)
}

// readNext reads what there is, and leaves what comes later to read. The last
// one cleans up.
func (c *conn) readNext() {
	if c.wire.socket != nil {
		c.in.borrow(c.wire)
	}
	for {
		if !c.readSigns() {
			if c.readOne() {
				break
			}
			c.extendDeadline()
		}
		if c.wire.socket == nil || c.in.Buffered() == 0 {
			c.awaitNext()
			return
		}
	}
	// The peer answers our close frame, or hangs up, or is cut off when
	// closeTimeout is over; what it had under way is not processed.
	for {
		if _, _, err := c.ws.NextReader(); err != nil {
			break
		}
	}
	c.in.giveBack()
	c.finish()
	c.hub.connections.Done()
}

// readSigns takes the pings and pongs that come next, and reports whether there
// were any. The library would go on to wait for the frame after them, and an
// idle client sends nothing else.
func (c *conn) readSigns() (any bool) {
	for c.wire.socket != nil {
		head, err := c.in.Peek(2)
		if err != nil || head[0] != wholePing && head[0] != wholePong || head[1] < 0x80 || head[1] > 0x80+125 {
			return any // for the library, what is wrong with it too
		}
		sign, length := head[0], int(head[1]-0x80)
		frame, err := c.in.Peek(6 + length)
		if err != nil {
			return any
		}
		mask, data := frame[2:6], bytes.Clone(frame[6:])
		for i := range data {
			data[i] ^= mask[i%4]
		}
		_, _ = c.in.Discard(6 + length) // it is there
		handle := c.ws.PongHandler()
		if sign == wholePing {
			handle = c.ws.PingHandler()
		}
		_ = handle(string(data)) // ours return none
		any = true
		if c.in.Buffered() == 0 {
			break
		}
	}
	return any
}

// readOne takes one frame, and reports whether it was the last.
func (c *conn) readOne() (last bool) {
	kind, data, err := readFrame(c.ws, c.hub.cfg.Documents.MaxMessage)
	switch {
	case errors.Is(err, errTooLarge):
		c.fail("", CodeTooLarge, "a frame may have at most "+string(encode(c.hub.cfg.Documents.MaxMessage))+" bytes")
		c.close(closeTooBig)
	case err != nil:
		c.close(lostBy(err))
	default:
		c.bytesIn.Add(int64(len(data)))
		c.receive(kind, data)
	}
	return c.isClosing()
}

var errTooLarge = errors.New("frame too large")

// readFrame reads one message. It limits the size itself: gorilla's own
// limit closes before the error frame is out.
func readFrame(ws *websocket.Conn, limit int64) (kind int, data []byte, err error) {
	kind, r, err := ws.NextReader()
	if err != nil {
		return 0, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLarge
	}
	return kind, data, err
}

// lostBy says how the peer went.
func lostBy(err error) closing {
	var closed *websocket.CloseError
	switch {
	case !errors.As(err, &closed), closed.Code == websocket.CloseAbnormalClosure:
		return closeLost
	case closed.Code == websocket.CloseGoingAway:
		return closeByReload
	}
	return closeByPeer
}

// receive takes one frame as far as the reader may: what is over a limit is
// refused here, a ping is answered, everything else waits for the worker.
func (c *conn) receive(kind int, data []byte) {
	in := inbound{}
	in.request, in.err = decodeRequest(data)
	if kind != websocket.TextMessage {
		in.err = errors.New("text frames are expected, not binary ones")
	}
	c.hub.metrics.frames.WithLabelValues(typeLabel(in)).Inc()

	now := time.Now()
	wait, ok := c.frames.take(now)
	if ok && in.Type == typeOperation {
		wait, ok = c.operations.take(now)
	}
	if shared := c.shared.Load(); ok {
		if wait, ok = shared.frame(now); ok && in.Type == typeOperation {
			wait, ok = shared.operation(now)
		}
	}
	switch {
	case !ok:
		c.refuse(in.ID, wait, now)
	case in.Type == typePing && in.err == nil && c.isOpen():
		c.reply(plainFrame{Type: "pong", Re: in.ID})
	default:
		c.enqueue(in)
	}
}

// typeLabel is the frame's type as a metric label: one of a closed set.
func typeLabel(in inbound) string {
	switch _, known := handlers[in.Type]; {
	case in.err != nil:
		return "bad"
	case !known:
		return "unknown"
	default:
		return in.Type
	}
}

// refuse answers a frame over the rate limit, and closes when the client
// does not slow down.
func (c *conn) refuse(re string, wait time.Duration, now time.Time) {
	c.hub.metrics.errors.WithLabelValues(string(CodeRateLimited)).Inc()
	c.reply(errorFrame{
		Type: "error", Re: re, Code: CodeRateLimited,
		Message: "too many frames; this one was not processed", RetryAfterMS: max(1, wait.Milliseconds()),
	})
	if c.strain.refused(now) {
		c.close(closeRate)
	}
}

// enqueue hands a frame to the worker, and waits while too many are pending.
func (c *conn) enqueue(in inbound) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) >= maxPending && c.closing == nil {
		c.changed.Wait()
	}
	if c.closing != nil {
		return
	}
	c.pending = append(c.pending, in)
	c.workLocked()
}

func (c *conn) workLocked() {
	if !c.working {
		c.working = true
		c.hub.crew.do((*conn).work, c) // finish waits for it
	}
}

// work is the worker: it handles what is pending and ends. After the peer
// has gone it still handles what had been received; after this side has
// decided to close it does not.
func (c *conn) work() {
	for {
		c.mu.Lock()
		if c.closing != nil && c.closing.code != closeAbnormal {
			c.pending = nil
		}
		if c.doubt && c.closing == nil {
			c.doubt = false
			c.mu.Unlock()
			c.reauthorize()
			continue
		}
		if len(c.pending) == 0 {
			c.pending = nil
			c.working = false
			c.changed.Broadcast()
			c.mu.Unlock()
			return
		}
		in := c.pending[0]
		c.pending = c.pending[1:]
		c.changed.Broadcast()
		c.mu.Unlock()
		c.handle(in)
	}
}
