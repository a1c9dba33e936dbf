package ws

import (
	"bytes"
	"net"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"
)

// wire is a connection that the library and the hub write to. The library
// writes control frames from the reader, too: its answers to a close, and to
// what breaks the protocol. They must not come in the middle of frames that the
// hub is writing, over more than one write if need be; and nothing comes after
// a close frame (RFC 6455, section 5.5.1).
type wire struct {
	net.Conn

	// Fixed after construction.
	socket  syscall.RawConn // below; nil: there is more between, such as TLS
	counted counter         // told of bytes that are written to socket; nil: nobody is

	whole     sync.Mutex // held while frames are written, and thus over I/O; guards the following
	closeSent bool       // or about to be
	opening   bool       // what is written first, the answer to the upgrade, goes out with what comes next
	held      []byte     // that answer
}

// counter counts the bytes of a connection, those too that are written past it.
type counter interface{ Wrote(n int) }

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn}
	w.counted, _ = conn.(counter)
	if _, plain := conn.(*net.TCPConn); plain || w.counted != nil {
		w.socket = rawSocket(conn)
	}
	return w
}

// Write implements net.Conn for the library.
func (w *wire) Write(p []byte) (int, error) {
	w.whole.Lock()
	defer w.whole.Unlock()
	if w.opening {
		w.opening, w.held = false, bytes.Clone(p)
		return len(p), nil
	}
	if w.held == nil {
		return w.Conn.Write(p)
	}
	all := append(w.held, p...)
	w.held = nil
	n, err := w.Conn.Write(all)
	return max(0, n-len(all)+len(p)), err
}

// answerAlone writes the answer to the upgrade: nothing comes after it.
func (w *wire) answerAlone() {
	w.whole.Lock()
	defer w.whole.Unlock()
	_, _ = w.Conn.Write(w.held) // the connection is closed next
	w.held = nil
}

// closing says that a close frame is what comes next: no frames of the hub do.
func (w *wire) closing() {
	w.whole.Lock()
	defer w.whole.Unlock()
	w.closeSent = true
}

// tryFrames writes frames without waiting, as far as the socket takes them, and
// returns what is left to write. n and its length together are how many bytes
// the frames have: the answer to the upgrade, which goes before the first, is
// none of theirs, so that n may be negative. The batch is used up: a client that
// does not read holds no more memory than what is written to it. The caller has
// w.whole.
func (w *wire) tryFrames(b *batch) (n int, rest []byte, err error) {
	defer b.release()
	if w.closeSent {
		return 0, nil, websocket.ErrCloseSent
	}
	all, own := b.wire, b.pooled == nil
	before := len(w.held)
	if w.held != nil {
		all, own, w.held = append(w.held, all...), true, nil
	}
	if w.socket != nil {
		a := attempts.Get().(*attempt)
		n = a.write(w.socket, all)
		attempts.Put(a)
		if w.counted != nil {
			w.counted.Wrote(n)
		}
	}
	if rest = all[n:]; !own {
		rest = append([]byte(nil), rest...)
	}
	return n - before, rest, nil
}

var attempts = sync.Pool{New: func() any { return newAttempt() }}

// putRest writes what tryFrames has left, and waits for the client, no later
// than the write deadline. The caller has w.whole.
func (w *wire) putRest(rest []byte) error {
	_, err := w.Conn.Write(rest)
	return err
}
