package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is clients that have joined. One goroutine reads what comes for all of them, as often as it has time to: a
// generator that had to be woken for each of their sockets would take most of the machine, and most of the cost of a
// write is waking who waits for it.
type crowd struct {
	clients []*client
	epoll   int
	stop    atomic.Bool
	reading sync.WaitGroup
}

// gather takes clients out of the hands of the Go runtime, which would wait for each of their sockets.
func gather(clients []*client) (*crowd, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &crowd{clients: clients, epoll: epoll}
	for i, c := range clients {
		file, err := c.conn.File()
		if err != nil {
			return nil, err
		}
		c.rest, _ = c.in.Peek(c.in.Buffered())
		c.rest = bytes.Clone(c.rest)
		_ = c.conn.Close()
		if c.fd, err = unix.Dup(int(file.Fd())); err != nil {
			return nil, err
		}
		_ = file.Close()
		c.conn, c.in = nil, nil
		if err := unix.SetNonblock(c.fd, true); err != nil {
			return nil, err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)} // the kernel keeps it as it is
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, c.fd, &event); err != nil {
			return nil, err
		}
	}
	w.reading.Go(w.read)
	return w, nil
}

// pass is the pause between two looks at all sockets: what a delivery may seem to take longer than it does.
const pass = 2 * time.Millisecond

func (w *crowd) read() {
	events := make([]unix.EpollEvent, len(w.clients))
	buf := make([]byte, 256<<10)
	for !w.stop.Load() {
		n, err := unix.EpollWait(w.epoll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err)
		}
		for _, e := range events[:max(0, n)] {
			c := w.clients[e.Fd]
			n, err := unix.Read(c.fd, buf)
			switch {
			case n > 0:
				c.take(buf[:n])
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			default: // it was closed
				_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
			}
		}
		time.Sleep(pass)
	}
}

func (w *crowd) hangUp() {
	w.stop.Store(true)
	w.reading.Wait()
	_ = unix.Close(w.epoll)
	for _, c := range w.clients {
		_ = unix.Close(c.fd)
	}
}

func (c *client) write(b []byte) error {
	_, err := unix.Write(c.fd, b)
	return err
}

// take reads frames, whose length is all that is looked at, and of operations seq and time.
func (c *client) take(b []byte) {
	if len(c.rest) > 0 {
		b = append(c.rest, b...)
	}
	for {
		op, body, size := serverFrame(b)
		if size == 0 {
			break
		}
		b = b[size:]
		switch {
		case op == opPing:
			_ = c.write(clientFrame(opPong, nil)) // a connection that is gone shows when it is read
		case op == opBinary && bytes.HasPrefix(body, []byte(`{"type":"operation"`)):
			c.delivered(body)
		case op == opText && bytes.Contains(body, []byte(`"type":"ack"`)):
			counts.acks.Add(1)
		case op == opText && bytes.Contains(body, []byte(`"type":"error"`)):
			if counts.refused.Add(1) == 1 {
				fmt.Printf("the first refusal: %s\n", body)
			}
		case op == opText && bytes.Contains(body, []byte(`"type":"lagged"`)):
			counts.lagged.Add(1)
		}
	}
	c.rest = append(c.rest[:0:0], b...)
}

// serverFrame is the first frame in b, which is not masked: RFC 6455, section 5.2. size is that of all of it, 0 when it is
// not complete.
func serverFrame(b []byte) (op byte, body []byte, size int) {
	if len(b) < 2 {
		return 0, nil, 0
	}
	head, length := 2, uint64(b[1]&0x7f)
	switch {
	case length == 126 && len(b) >= 4:
		head, length = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case length == 127 && len(b) >= 10:
		head, length = 10, binary.BigEndian.Uint64(b[2:])
	case length >= 126:
		return 0, nil, 0
	}
	if uint64(len(b)-head) < length {
		return 0, nil, 0
	}
	return b[0] & 0xf, b[head : head+int(length)], head + int(length)
}

var errGarbled = errors.New("an operation without seq or time")

func (c *client) delivered(body []byte) {
	n := counts.deliveries.Add(1)
	seq, err := number(body, `"seq":`)
	if err == nil && c.last != 0 && seq != c.last+1 {
		counts.gaps.Add(1)
	}
	c.last = seq
	if n%16 != 0 {
		return
	}
	sent, err := number(body, `"t":`)
	if err != nil {
		panic(err) // the server has changed a payload
	}
	took := time.Since(time.Unix(0, int64(sent)))
	counts.mu.Lock()
	counts.delay = append(counts.delay, took)
	counts.mu.Unlock()
}

func number(body []byte, name string) (uint64, error) {
	i := bytes.Index(body, []byte(name))
	if i < 0 {
		return 0, errGarbled
	}
	rest := body[i+len(name):]
	end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 1 {
		return 0, errGarbled
	}
	return strconv.ParseUint(string(rest[:end]), 10, 64)
}
