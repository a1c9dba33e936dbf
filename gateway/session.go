package gateway

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ConnectionInfo describes one live connection: a gateway session, or a
// socket of another room that is listed beside them.
type ConnectionInfo struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`  // gateway sessions: "http", "tcp"
	State    string    `json:"state"` // gateway sessions: "idle", "active", "upgraded"; "connecting", "open", "half-closed"
	Listener string    `json:"listener"`
	Route    string    `json:"route"`    // of the newest request
	Client   string    `json:"client"`   // address and port; behind a trusted proxy: of the newest request, and port 0 is unknown
	User     string    `json:"user"`     // ID, when the gateway looked
	Session  string    `json:"session"`  // handle, when the gateway looked
	Document string    `json:"document"` // sockets only
	BytesIn  int64     `json:"bytes_in"`
	BytesOut int64     `json:"bytes_out"`
	Since    time.Time `json:"since"`
}

// States of gateway sessions.
const (
	stateIdle       = "idle"        // HTTP: no request under way
	stateActive     = "active"      // HTTP: requests under way
	stateUpgraded   = "upgraded"    // HTTP: the connection belongs to a socket now
	stateConnecting = "connecting"  // TCP: to the target
	stateOpen       = "open"        // TCP: both directions flow
	stateHalfClosed = "half-closed" // TCP: one direction has ended
)

// session is the gateway's record of one client connection, from its
// acceptance until it is closed, whoever has it then.
type session struct {
	// Fixed after construction.
	id, kind, listener string
	address            netip.Addr // of who connected
	since              time.Time
	conn               *countedConn

	in, out  atomic.Int64 // bytes on the wire
	desynced atomic.Bool  // HTTP/1: where the next request begins is unknown; none is served

	mu      sync.Mutex // a leaf: nothing is called under it
	client  string     // address and port; behind a proxy: of the newest request
	state   string
	active  int  // HTTP requests under way
	proxied bool // upgraded to a socket that ends at an upstream
	route   string
	user    string
	handle  string
}

// begin notes that a client's HTTP request is on its way by a route.
func (s *session) begin(route, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active++
	s.state, s.route, s.client, s.user, s.handle = stateActive, route, client, "", ""
}

func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active--; s.active == 0 && s.state == stateActive {
		s.state = stateIdle
	}
}

func (s *session) identified(who identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.handle = who.user, who.handle
}

func (s *session) upgraded(proxied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.proxied = stateUpgraded, proxied
	s.conn.framing.Store(nil) // what comes now are no requests
}

func (s *session) setState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

func (s *session) isProxied() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proxied
}

func (s *session) info() ConnectionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ConnectionInfo{
		ID: s.id, Kind: s.kind, State: s.state, Listener: s.listener, Route: s.route,
		Client: s.client, User: s.user, Session: s.handle,
		BytesIn: s.in.Load(), BytesOut: s.out.Load(), Since: s.since,
	}
}

// sessions is the live list.
type sessions struct {
	metrics *metrics

	mu   sync.Mutex
	live map[*session]struct{}
	from map[peer]int  // live ones; none of them zero
	none chan struct{} // closed when live becomes empty; nil while nobody waits
}

func newSessions(m *metrics) *sessions {
	return &sessions{metrics: m, live: map[*session]struct{}{}, from: map[peer]int{}}
}

// peer is what connections are counted by.
type peer struct {
	listener string
	address  netip.Addr // see clientAddress
}

func (s *session) peer() peer { return peer{s.listener, clientAddress(s.address)} }

// open lists a new client connection, or closes it and returns nil when its
// client has as many as it may have on the listener; 0 is any number. It is
// taken off by closing the returned connection.
func (t *sessions) open(kind, listener string, c *net.TCPConn, limit int) *countedConn {
	s := &session{
		id: randomID()[:13], kind: kind, listener: listener, client: c.RemoteAddr().String(),
		since: time.Now(), state: stateIdle,
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		s.address = a.AddrPort().Addr()
	}
	s.conn = &countedConn{TCPConn: c, session: s, list: t}
	if !t.add(s, limit) {
		_ = c.Close()
		t.metrics.failed(listener, "", reasonConnections)
		return nil
	}
	t.metrics.sessions.WithLabelValues(kind).Inc()
	return s.conn
}

func (t *sessions) add(s *session, limit int) bool {
	from := s.peer()
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit > 0 && t.from[from] >= limit {
		return false
	}
	t.from[from]++
	t.live[s] = struct{}{}
	return true
}

func (t *sessions) remove(s *session) {
	from := s.peer()
	t.mu.Lock()
	delete(t.live, s)
	if t.from[from]--; t.from[from] == 0 {
		delete(t.from, from)
	}
	if len(t.live) == 0 && t.none != nil {
		close(t.none)
		t.none = nil
	}
	t.mu.Unlock()
	t.metrics.sessions.WithLabelValues(s.kind).Dec()
	t.metrics.bytes.WithLabelValues("in").Add(float64(s.in.Load()))
	t.metrics.bytes.WithLabelValues("out").Add(float64(s.out.Load()))
}

// all returns the live sessions that keep accepts; nil accepts all.
func (t *sessions) all(keep func(*session) bool) []*session {
	t.mu.Lock()
	found := make([]*session, 0, len(t.live))
	for s := range t.live {
		found = append(found, s)
	}
	t.mu.Unlock()
	if keep == nil {
		return found
	}
	kept := found[:0]
	for _, s := range found {
		if keep(s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// infos describes all live sessions, oldest first.
func (t *sessions) infos() []ConnectionInfo {
	all := t.all(nil)
	infos := make([]ConnectionInfo, len(all))
	for i, s := range all {
		infos[i] = s.info()
	}
	slices.SortFunc(infos, func(a, b ConnectionInfo) int { return a.Since.Compare(b.Since) })
	return infos
}

// wait returns when there is no session or ctx has ended, with its error.
func (t *sessions) wait(ctx context.Context) error {
	t.mu.Lock()
	if len(t.live) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	t.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// countedConn is a client connection whose bytes are counted in its session,
// and whose end ends it.
type countedConn struct {
	*net.TCPConn // CloseWrite, deadlines, addresses
	session      *session
	list         *sessions
	once         sync.Once
	framing      atomic.Pointer[framing] // holds nil: not plain HTTP, or no longer
	more         atomic.Bool             // what is written now is the beginning of what follows at once
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.session.in.Add(int64(n))
	if f := c.framing.Load(); f != nil {
		f.follow(p[:n])
	}
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	write := (*net.TCPConn).Write
	if c.more.Load() {
		write = writeMore
	}
	n, err := write(c.TCPConn, p)
	c.session.out.Add(int64(n))
	return n, err
}

// Wrote counts bytes that were written past the connection, through its
// SyscallConn.
func (c *countedConn) Wrote(n int) { c.session.out.Add(int64(n)) }

// sendfileStep bounds what goes out between two updates of the byte count.
const sendfileStep = 1 << 20

// ReadFrom keeps sendfile for files, which net/http limits to their length.
func (c *countedConn) ReadFrom(r io.Reader) (total int64, err error) {
	whole, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(writerOnly{c}, r)
	}
	for whole.N > 0 {
		step := &io.LimitedReader{R: whole.R, N: min(whole.N, sendfileStep)}
		n, err := c.TCPConn.ReadFrom(step)
		c.session.out.Add(n)
		whole.N -= n
		total += n
		if err != nil || step.N > 0 {
			return total, err
		}
	}
	return total, nil
}

// WriteTo hides the TCPConn's, which would not count.
func (c *countedConn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, readerOnly{c})
}

func (c *countedConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.list.remove(c.session) })
	return err
}

// writerOnly and readerOnly hide the fast paths of a connection from io.Copy.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

// randomID returns 26 random characters of a-z2-7.
func randomID() string { return strings.ToLower(rand.Text()) }
