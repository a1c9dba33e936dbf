package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of every HTTP listener that has none of its own. There is none on
// how long a request or its response may take: uploads and streams are as long
// as they are.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // between requests; longer than balancers keep connections
	maxHeaderBytes    = 64 << 10
)

// listener is one address: its socket, and the routes in force behind it.
type listener struct {
	// Fixed after construction.
	g           *Gateway
	address     string                  // as configured
	certificate atomic.Pointer[keyPair] // holds nil: plain, for good
	server      *http.Server            // nil: raw TCP
	socket      *net.TCPListener        // set by listen

	mu    sync.RWMutex // a leaf
	table *table
}

// prepared is what a reload replaces.
type prepared struct {
	table       *table
	certificate *keyPair // nil: plain
}

func prepare(g *Gateway, lc Listener) (prepared, error) {
	var p prepared
	if lc.TLS != nil {
		var err error
		if p.certificate, err = newKeyPair(*lc.TLS, g.log); err != nil {
			return prepared{}, err
		}
	}
	var err error
	p.table, err = newTable(g, lc)
	return p, err
}

func newListener(g *Gateway, lc Listener) (*listener, error) {
	p, err := prepare(g, lc)
	if err != nil {
		return nil, err
	}
	l := &listener{g: g, address: lc.Address, table: p.table}
	l.certificate.Store(p.certificate)
	if lc.TCP == nil {
		l.server = &http.Server{
			Handler:           l,
			ReadHeaderTimeout: l.table.limits.HeaderTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    l.table.limits.Header,
			ErrorLog:          slog.NewLogLogger(g.handlerLog().Handler(), slog.LevelDebug),
			BaseContext:       func(net.Listener) context.Context { return g.life },
			ConnContext:       withSession,

			DisableGeneralOptionsHandler: true, // it would answer past ServeHTTP, which counts
		}
		if p.certificate != nil {
			l.server.TLSConfig = l.tlsConfig()
		}
	}
	return l, nil
}

// install puts what a reload has prepared in force and returns the routes
// that were.
func (l *listener) install(p prepared) (old *table) {
	l.certificate.Store(p.certificate)
	return l.swap(p.table)
}

func (l *listener) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return l.certificate.Load().get(hello) },
	}
}

func (l *listener) listen() error {
	if l.socket != nil {
		return nil
	}
	socket, err := listenTCP(l.address)
	l.socket = socket
	return err
}

func listenTCP(address string) (*net.TCPListener, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return socket.(*net.TCPListener), nil
}

// serve accepts until the socket is closed, which is no error.
func (l *listener) serve() error {
	var err error
	switch {
	case l.socket == nil:
		return errors.New("Serve before Listen")
	case l.server == nil:
		err = l.acceptTCP()
	case l.certificate.Load() != nil:
		err = l.server.ServeTLS(&countingListener{l.socket, l}, "", "")
	default:
		err = l.server.Serve(&countingListener{l.socket, l})
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("listener %s: %w", l.address, err)
}

// acceptTCP starts a goroutine for each raw TCP session. Shutdown waits for
// them.
func (l *listener) acceptTCP() error {
	for pause := time.Duration(0); ; {
		c, err := l.socket.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: give sessions time to end.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.g.log.Warn("accept", "listener", l.address, "err", err)
			select {
			case <-time.After(pause):
			case <-l.g.life.Done():
				return net.ErrClosed
			}
			continue
		}
		pause = 0
		if client := l.open(kindTCP, c); client != nil {
			l.g.running.Go(func() { l.serveTCP(client) })
		}
	}
}

// stop stops accepting; for HTTP it also waits for requests under way, until
// ctx ends.
func (l *listener) stop(ctx context.Context) {
	if l.socket != nil {
		_ = l.socket.Close()
	}
	if l.server != nil {
		l.closeUnused()
		_ = l.server.Shutdown(ctx) // sessions.wait tells what is left
	}
}

// closeUnused closes connections that have not sent anything, such as browsers
// and HTTP clients open in advance: net/http would wait for their first request
// for five seconds.
func (l *listener) closeUnused() {
	for _, s := range l.g.sessions.all(func(s *session) bool { return s.listener == l.address && s.in.Load() == 0 }) {
		_ = s.conn.Close()
	}
}

// close cuts what stop has left.
func (l *listener) close() {
	if l.server != nil {
		_ = l.server.Close()
	}
}

// countingListener makes a gateway session of every connection that it
// accepts.
type countingListener struct {
	*net.TCPListener
	l *listener
}

func (c *countingListener) Accept() (net.Conn, error) {
	for {
		conn, err := c.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if client := c.l.open(kindHTTP, conn); client != nil {
			return client, nil
		}
	}
}

// open makes a gateway session of a connection, unless its client has too
// many: then it is closed, and nil.
func (l *listener) open(kind string, c *net.TCPConn) *countedConn {
	t := l.acquire()
	limit := t.limits.ConnectionsPerAddress
	t.users.Done()
	if limit > 0 {
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && l.g.trusts(a.AddrPort().Addr()) {
			limit = 0 // a proxy connects for many
		}
	}
	client := l.g.sessions.open(kind, l.address, c, limit)
	if client != nil && kind == kindHTTP && l.certificate.Load() == nil {
		client.framing.Store(new(framing))
	}
	return client
}

type sessionKey struct{}

// withSession is an http.Server's ConnContext.
func withSession(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, sessionKey{}, c.(*countedConn).session)
}

// sessionFrom returns the gateway session that a request came on.
func sessionFrom(ctx context.Context) *session {
	return ctx.Value(sessionKey{}).(*session)
}
