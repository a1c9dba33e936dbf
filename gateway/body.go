package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// clientBody is a request's body on its way to an upstream. Closing it does
// nothing: a transport that could not connect must not close what another
// attempt will read, and the server closes it in the end. Safe for concurrent
// use, since a transport may still read while the response is being sent.
type clientBody struct {
	io.ReadCloser
	read   atomic.Bool            // some of it, or an attempt to
	ended  atomic.Bool            // read to its end
	broken atomic.Pointer[reason] // malformed, cut off, too large or too slow
	shut   atomic.Bool            // the exchange is over
}

var errBodyShut = errors.New("request body read after the exchange")

func (b *clientBody) Read(p []byte) (int, error) {
	if b.shut.Load() {
		return 0, errBodyShut
	}
	return b.take(p)
}

func (b *clientBody) take(p []byte) (int, error) {
	b.read.Store(true)
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.ended.Store(true)
	default:
		why := bodyFailure(err)
		b.broken.Store(&why)
	}
	return n, err
}

// Close does nothing.
func (b *clientBody) Close() error { return nil }

// touched reports whether any of the body was read. A nil body is not.
func (b *clientBody) touched() bool { return b != nil && b.read.Load() }

// failed reports whether and why reading the body failed. A nil body did not.
func (b *clientBody) failed() (reason, bool) {
	if b == nil {
		return "", false
	}
	why := b.broken.Load()
	if why == nil {
		return "", false
	}
	return *why, true
}

// What is read of a body that an upstream did not want, in order to use the
// client's connection again.
const (
	settleBytes = 256 << 10
	settleTime  = 500 * time.Millisecond
)

// settleBody ends the use of the request's body. In full-duplex mode net/http
// itself would go on to the next request after a body that broke off or is
// malformed: what follows would be read as a request that nobody sent. Such a
// connection serves none.
func (x *exchange) settleBody(r *http.Request) {
	b := x.body
	b.shut.Store(true)
	x.intake.end() // the time limit below is all that counts now
	if r.ProtoMajor != 1 || x.hijacked || b.ended.Load() {
		return
	}
	// With Expect: 100-continue the server closes the connection anyway.
	if _, failed := b.failed(); !failed && x.status != 0 && r.Header.Get("Expect") == "" {
		rc := http.NewResponseController(x.ResponseWriter)
		if rc.Flush() == nil && rc.SetReadDeadline(time.Now().Add(settleTime)) == nil {
			_, _ = io.CopyN(io.Discard, readerFunc(b.take), settleBytes)
		}
	}
	if !b.ended.Load() {
		x.session.desynced.Store(true)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
