package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"
)

// exchange is one HTTP request on its way through the gateway: what has been
// decided about it, and the ResponseWriter that sees what becomes of it. It
// belongs to the request's goroutine.
type exchange struct {
	http.ResponseWriter
	g       *Gateway
	session *session
	route   *route
	started time.Time

	id       []string      // the X-Request-Id, shared by the headers it goes in
	origin   origin        // who sent it, as far as that can be believed
	who      identity      // known once an upstream route has asked
	request  *http.Request // as it came, on its way to an upstream
	body     *clientBody   // on its way to an upstream, nil without one
	intake   *intake       // the same as it comes in, nil without one
	bond     *bond         // of a socket that ends with its session, else nil
	long     *stream       // of a response that ends with its session, else nil
	target   *target       // upstream that answered
	status   int           // 0: no header sent
	sent     int64         // body bytes
	expected int64         // body bytes that an upstream has promised
	cookies  []string      // that the gateway itself sets; of a request to an upstream
	interim  bool          // an interim response was sent
	closes   bool          // HTTP/1: the connection, after the response
	hijacked bool
	reason   reason        // why the gateway answered in another's stead
	cause    error         // for the log
	wait     time.Duration // what a refused client is told to wait, if not what the reason says
}

const requestIDHeader = "X-Request-Id"

type exchangeKey struct{}

// exchangeFrom returns the exchange that a request's context belongs to.
func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ServeHTTP takes a request to its route.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := sessionFrom(r.Context())
	if s.desynced.Load() {
		panic(http.ErrAbortHandler)
	}
	known := s.conn.framing.Load().next()
	t := l.acquire()
	defer t.users.Done()
	x := &exchange{
		ResponseWriter: w, g: l.g, route: noRoute, started: time.Now(), id: []string{randomID()},
		session: s, origin: l.g.originOf(r), closes: known.endsConnection(r),
	}
	removeForged(r.Header)
	removeForged(r.Trailer)
	r.Header[requestIDHeader] = x.id
	w.Header()[requestIDHeader] = x.id

	path, ok := cleanPath(r.URL.Path)
	if ok {
		x.route = t.match(normalHost(r.Host), path, r.Method)
	}
	x.origin.apply(r)
	x.session.begin(x.route.name, x.origin.client)
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	defer x.finish(r)

	switch {
	case known == framedTwice:
		x.refuse(r, reasonFraming, nil) // the end of such a request cannot be told
	case r.Method == http.MethodOptions && r.RequestURI == "*":
		x.WriteHeader(http.StatusOK) // about the server as a whole, of which there is nothing to tell
	case !ok:
		x.refuse(r, reasonBadPath, nil)
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		x.refuse(r, reasonMethod, nil) // tunnels, and echoes of headers that clients must not see
	case x.route == noRoute:
		x.refuse(r, reasonNoRoute, nil)
	case x.withinLimits(r, t.limits):
		x.route.handler.ServeHTTP(x, r)
	}
}

// partWithBody bounds how long net/http waits for what is left of the request's
// body, of which it reads a part in order to use the connection again.
func (x *exchange) partWithBody(r *http.Request) {
	if x.intake != nil {
		x.intake.end()
	}
	if r.ProtoMajor == 1 && r.Body != http.NoBody && x.body == nil && !x.hijacked { // settleBody has done with the others
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now().Add(settleTime))
	}
}

// withinLimits reports whether a request is within the limits of its route,
// and puts those on its body that are known only while it comes; if not, it
// has been answered.
func (x *exchange) withinLimits(r *http.Request, limits Limits) bool {
	if x.route.limiter != nil {
		client, _ := netip.ParseAddrPort(x.origin.client) // who cannot be told apart shares a rate
		wait, ok := x.route.limiter.allow(clientAddress(client.Addr()), x.started)
		if !ok {
			x.wait = wait
			x.refuse(r, reasonRateLimited, nil)
			return false
		}
	}
	if r.Body == http.NoBody {
		return true
	}
	maxBody := limits.Body
	if x.route.maxBody != 0 {
		maxBody = x.route.maxBody
	}
	if maxBody > 0 && r.ContentLength > maxBody {
		x.refuse(r, reasonBodyTooLarge, nil)
		return false
	}
	x.takeIn(r, limits, maxBody)
	return true
}

// finish records how the exchange ended; deferred around the handler.
func (x *exchange) finish(r *http.Request) {
	failure := recover()
	abort := failure == http.ErrAbortHandler
	switch {
	case abort && x.reason == "" && r.Context().Err() != nil:
		x.reason = reasonClientGone
	case abort && x.reason == "" && x.route.kind == kindUpstream:
		x.reason = reasonUpstreamAborted
	case abort && x.reason == "":
		x.reason = reasonAborted
	case failure != nil && !abort:
		x.g.log.Error("panic in a handler", "request", x.id[0], "route", x.route.name, "panic", failure, "stack", string(debug.Stack()))
		if x.status == 0 && !x.hijacked {
			x.refuse(r, reasonPanic, nil)
		} else {
			x.reason, abort = reasonPanic, true
		}
	case x.status == 0 && !x.hijacked:
		x.begin(http.StatusOK) // net/http sends it now
	}
	if x.route.kind == kindUpstream {
		hideSessionSet(x.Header())
		delete(x.Header(), http.TrailerPrefix+requestIDHeader)
	}
	x.partWithBody(r)
	if x.target != nil {
		x.target.pool.release(x.target)
	}
	x.session.end()
	x.g.metrics.observe(x)
	x.logAccess(r)
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// WriteHeader sends the header.
func (x *exchange) WriteHeader(status int) {
	switch {
	case status < 200:
		x.beforeInterim()
	case x.status == 0:
		x.begin(status)
	}
	x.ResponseWriter.WriteHeader(status)
}

// begin readies the header of the final response. The request ID is set again
// because interim responses clear the header map.
func (x *exchange) begin(status int) {
	x.status = status
	x.Header()[requestIDHeader] = x.id
	if x.closes {
		x.Header().Set("Connection", "close")
	}
}

// beforeInterim leaves in the header what the upstream says there: ReverseProxy
// adds that of an interim response to the final one's, and empties it
// afterwards. Browsers take no cookies from interim responses.
func (x *exchange) beforeInterim() {
	h := x.Header()
	hideSessionSet(h)
	h[requestIDHeader] = x.id
	if own := len(x.cookies); own > 0 && !x.interim {
		h["Set-Cookie"] = h["Set-Cookie"][own:]
	}
	x.interim = true
}

// afterInterim gives the final response the cookies that it lost to interim
// ones.
func (x *exchange) afterInterim() {
	if x.interim && len(x.cookies) > 0 {
		x.Header()["Set-Cookie"] = x.cookies
	}
}

// Write passes on at once what is not the end of an upstream's body, so that
// what trickles in trickles out. Of bodies of unknown length ReverseProxy
// does so; its FlushInterval would do it for all, at the price of one more
// packet for each body that comes whole.
func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if x.long != nil {
		if err := x.long.goesOn(); err != nil {
			return 0, err
		}
	}
	n, err := x.ResponseWriter.Write(p)
	x.sent += int64(n)
	if err == nil && x.sent < x.expected {
		err = http.NewResponseController(x.ResponseWriter).Flush()
	}
	return n, err
}

// smallFile is what goes out in one write with the header. net/http's way to
// sendfile begins with a read and a write, whatever the length.
const smallFile = 8 << 10

// ReadFrom keeps the way to sendfile open.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if whole, ok := src.(*io.LimitedReader); ok && whole.N <= smallFile {
		buf := copyBuffers.Get()
		defer copyBuffers.Put(buf)
		n, err := io.ReadFull(whole, buf[:whole.N])
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			err = nil // shorter than it was a moment ago; io.CopyN says so
		}
		written, writeErr := x.ResponseWriter.Write(buf[:n])
		x.sent += int64(written)
		return int64(written), errors.Join(writeErr, err)
	}
	x.sendHeader()
	n, err := io.Copy(x.ResponseWriter, src)
	x.sent += n
	return n, err
}

// sendHeader sends the header alone: with the first bytes of a file net/http
// reads its beginning once more, to guess the type, which is known.
func (x *exchange) sendHeader() {
	f, ok := x.ResponseWriter.(http.Flusher)
	if !ok {
		return
	}
	if _, http1 := x.ResponseWriter.(io.ReaderFrom); http1 { // where this goroutine writes to the connection
		x.session.conn.more.Store(true)
		defer x.session.conn.more.Store(false)
	}
	f.Flush()
}

// Flush makes the exchange an http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is Flush for an http.ResponseController.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Unwrap lets an http.ResponseController reach what is not forwarded here.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// Hijack hands the connection over to a socket; the gateway session lives
// until that closes it.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.hijacked = true
	x.session.upgraded(x.route.kind == kindUpstream)
	if rw.Reader.Buffered() > 0 {
		// The client did not wait for the answer; a proxy that reads from
		// the connection alone would lose what it sent.
		conn = &bufferedConn{Conn: conn, r: rw.Reader}
	}
	if x.bond != nil {
		conn = x.bond.tie(conn)
	}
	return conn, rw, nil
}

// bufferedConn reads what the HTTP server had read ahead first.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	if n := c.r.Buffered(); n > 0 {
		return c.r.Read(p[:min(n, len(p))])
	}
	return c.Conn.Read(p)
}

// CloseWrite keeps the half-close of the connection behind.
func (c *bufferedConn) CloseWrite() error {
	if hc, ok := c.Conn.(halfCloser); ok {
		return hc.CloseWrite()
	}
	return c.Close()
}
