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
	read   atomic.Bool // some of it, or an attempt to
	ended  atomic.Bool // read to its end
	broken atomic.Bool // malformed or cut off
	shut   atomic.Bool // the exchange is over
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
		b.broken.Store(true)
	}
	return n, err
}

// Close does nothing.
func (b *clientBody) Close() error { return nil }

// touched reports whether any of the body was read; failed, whether reading
// it failed. A nil body is neither.
func (b *clientBody) touched() bool { return b != nil && b.read.Load() }
func (b *clientBody) failed() bool  { return b != nil && b.broken.Load() }

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
	if r.ProtoMajor != 1 || x.hijacked || b.ended.Load() {
		return
	}
	// With Expect: 100-continue the server closes the connection anyway.
	if !b.failed() && x.status != 0 && r.Header.Get("Expect") == "" {
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
