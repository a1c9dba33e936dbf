package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Config is what a Gateway is made of.
type Config struct {
	// Listeners are the sockets that clients connect to, in order; at least
	// one.
	Listeners []Listener

	// Handlers are what a route can `use`, by name: "documents", "pairs",
	// "webapp". The names become metric labels. The web app has the page
	// /login that browsers are sent to.
	Handlers map[string]http.Handler

	// Store tells whose session a request carries. Nil: nobody is ever
	// logged in, and a route that requires it is a fault.
	Store *sessionstore.Store

	// Bind ties a listener to the session that an ID names, until the binding
	// is closed: see sessionstore's Watcher. A socket to an upstream whose
	// route requires login is closed when its session ends. Nil: it stays.
	Bind func(ctx context.Context, id string, l sessionstore.Listener) (Binding, *sessionstore.Snapshot, error)

	// Signer signs assertions for the upstreams that want them, and its keys
	// are published at /.well-known/tandem/jwks.json of every HTTP listener.
	// Nil: neither.
	Signer *Signer

	// Available tells, without I/O, whether Store is known to answer. While
	// it does not, a route that requires login is 503 to visitors without a
	// session, too: they could not log in. Nil: always.
	Available func() bool

	// TrustedProxies are the networks whose word about a request's client,
	// protocol and host is taken: their X-Forwarded-For, -Proto and -Host, or
	// Forwarded (RFC 7239) where there is none of these. Everybody else's is
	// dropped. Empty: nobody. See ParseNetworks.
	TrustedProxies []netip.Prefix

	// Cookie is the name of the session cookie, which upstreams do not get
	// unless Upstream.ForwardCookie. Required with Store.
	Cookie string

	Admin AdminConfig
	Drain Drain

	// Logger; nil discards. Requests are logged at debug level, those that
	// the gateway itself had to answer with a 5xx at warn.
	Logger *slog.Logger

	// Metrics; nil registers none.
	Metrics prometheus.Registerer
}

// Drain says how Shutdown parts from clients; how long it may take is the
// deadline of Shutdown's context.
type Drain struct {
	// Spread is the time over which sockets proxied to upstreams are closed,
	// one after the other, so that their clients do not all come back at
	// once. Zero or negative: at once.
	Spread time.Duration
}

// Listener is one address and what is served there: Routes, or Upstream or
// Files alone, which is short for one route for every path, or raw TCP.
// or a redirect. Exactly one of the five is set.
type Listener struct {
	Address  string    // host:port; port 0 picks a free one
	TLS      *TLSFiles // nil: plain
	Routes   []Route   // the first that matches wins
	Upstream *Upstream
	Files    *Files
	TCP      *TCP

	// Redirect "https" answers every request with 308 to the same URL over
	// TLS, at the port of the first listener that has TLS; "https:443" names
	// the port that clients see.
	Redirect string

	Limits Limits
}

// Limits bound what clients may take of one listener.
type Limits struct {
	// Header is how many bytes a request's head may have; more is 431. 0:
	// 64 KiB. A reload does not change it.
	Header int

	// HeaderTimeout bounds the time that the head takes to come. 0: 10 s. A
	// reload does not change it.
	HeaderTimeout time.Duration

	// Body is how many bytes a request's body may have; more is 413. 0: any.
	Body int64

	// BodyTimeout is how long the client may take for each 16 KiB of a body,
	// whatever the upstream takes; slower is 408. 0: 60 s. Negative: no limit.
	BodyTimeout time.Duration

	// ConnectionsPerAddress is how many connections one IPv4 address or IPv6
	// /64 may have, unless it is a trusted proxy; more are closed at once. 0:
	// any.
	ConnectionsPerAddress int
}

func (l Limits) withDefaults() Limits {
	if l.Header == 0 {
		l.Header = maxHeaderBytes
	}
	if l.HeaderTimeout == 0 {
		l.HeaderTimeout = readHeaderTimeout
	}
	if l.BodyTimeout == 0 {
		l.BodyTimeout = time.Minute
	}
	return l
}

// Rate bounds the requests of each client, one IPv4 address or IPv6 /64, on a
// route; more are 429 with Retry-After. It is this replica's own count.
type Rate struct {
	Requests int           // in Per. At least 1.
	Per      time.Duration // 0: 1 s
	Burst    int           // how many may come at once. 0: Requests
}

func (r Rate) withDefaults() Rate {
	if r.Per == 0 {
		r.Per = time.Second
	}
	if r.Burst == 0 {
		r.Burst = r.Requests
	}
	return r
}

// TLSFiles are a certificate chain and its key, PEM files that are read again
// within a second of a change, and by every Reload. HTTP listeners speak HTTP/2 over it.
type TLSFiles struct {
	Cert string
	Key  string
}

// Route sends what matches Host, Path and Methods to one of Use, Files and Upstream.
type Route struct {
	// Host without a port: "api.example.test", or "*.example.test" for every
	// name with one more label. Empty: any.
	Host string

	// Path is a prefix that ends at a segment: "/assets/" and "/assets" both
	// match /assets, /assets/ and /assets/a, neither matches /assetsb. Empty
	// is "/", which matches every path.
	Path string

	// Methods that the route is for, in upper case; HEAD goes with GET. None:
	// all.
	Methods []string

	Use      string // name of one of Config.Handlers
	Files    *Files
	Upstream *Upstream

	// MaxBody is how many bytes a request's body may have; more is 413. 0:
	// Limits.Body of the listener. Negative: any.
	MaxBody int64

	Rate *Rate // nil: any
}

// Files serves a directory.
type Files struct {
	// Root is the directory that the rest of the path, after the route's, is
	// looked up in. Nothing outside it is served, by symbolic link neither,
	// and no name that starts with a dot but /.well-known/.
	Root string

	// SPA answers a path that names no file with /index.html, if the path
	// looks like a page: its last segment has no dot, or the client asks for
	// HTML.
	SPA bool

	// Cache says what Cache-Control files are sent with; the first rule that
	// matches counts. Without one: no such header, so that browsers ask for
	// news of a file by its ETag, at times of their own choice.
	Cache []CacheRule
}

// CacheRule is the Cache-Control of some files, by the name of the file that
// is served: index.html for a directory, and where SPA answers.
type CacheRule struct {
	// Match is a directory below the root, with a slash at its end, or a
	// pattern (path.Match) for the last segment of the name.
	Match string

	// Control is the header's value, as it is sent.
	Control string
}

// TCP passes bytes to a target: Target or one of Targets.
type TCP struct {
	Target string // host:port

	// Targets are taken in turn, for the connections that each has: the one
	// with the fewest. One that cannot be reached is passed over for a while,
	// and the next is tried. Either Target or Targets is set.
	Targets []string

	// Idle is how long no byte may flow in either direction before the session
	// is ended. 0: any time.
	Idle time.Duration

	// Health connects to each target by itself, and passes those over that
	// cannot be reached; nil: only failures of real sessions count. Its Path
	// is not used.
	Health *Health
}

func (t TCP) targets() []string {
	if t.Target != "" {
		return []string{t.Target}
	}
	return t.Targets
}

// What a route to an upstream asks of its visitors.
const (
	LoginNone     = "none"     // anybody; who is logged in is told to the upstream
	LoginRequired = "required" // browsers are sent to /login, others get 401
)

// How a target is chosen for a request.
const (
	BalanceLeastRequests = "least-requests" // the one with the fewest requests under way, in turn among equals
	BalanceRoundRobin    = "round-robin"    // in turn
	BalanceSessionHash   = "session-hash"   // the same one for the same session, or client address without a session
)

// Upstream is an HTTP service behind the gateway.
type Upstream struct {
	// Targets are http:// or https:// URLs of a host and port only.
	Targets []string

	Login   string  // LoginNone (default) or LoginRequired
	Balance string  // default BalanceLeastRequests
	Health  *Health // nil: no active checks

	Timeouts Timeouts

	// Concurrency bounds what is under way; nil: nothing does.
	Concurrency *Concurrency

	// Retries is how many other targets are tried when one fails a request of
	// which nothing was sent, or that is GET, HEAD or OPTIONS without a body.
	// A target that cannot be reached, or failed three requests in a row, is
	// passed over for a while while there are others, and then tried by one.
	// Zero: none. Negative is a fault.
	Retries int

	// ForwardCookie leaves the session cookie in requests to this upstream:
	// for an application that reads the session from Redis by itself.
	ForwardCookie bool

	// SessionWrite lets responses change the client's session, log in and log
	// out: see sessionSetHeader. Otherwise the header is removed and ignored.
	SessionWrite bool

	// Assertion sends X-Tandem-Assertion with the requests of logged-in users:
	// see Signer. The audience is the route's host and path.
	Assertion bool

	// StripPrefix takes the route's path away from the request's; otherwise
	// the upstream sees the path as it came.
	StripPrefix bool
}

// Health checks each target of an upstream by itself: GET Path, where 2xx and
// 3xx mean healthy. A target is taken for healthy until its first check.
type Health struct {
	Path     string        // default "/"
	Interval time.Duration // 0: 10 s
	Timeout  time.Duration // 0: 2 s
}

// Concurrency bounds the requests that are under way at each target. Those
// that find no free place wait for one, in turn; a socket takes a place as long
// as it is open. A full target is passed over, by session-hash too.
type Concurrency struct {
	// Requests at one target. At least 1.
	Requests int

	// Waiting is how many more may wait for a place at any target; past it
	// they are 503 at once. 0: none waits. Negative is a fault.
	Waiting int

	// Timeout is how long one waits before it is 503. 0: 5 s.
	Timeout time.Duration
}

// Timeouts of one upstream, by phase.
type Timeouts struct {
	// Connect bounds the TCP connect. 0: 5 s.
	Connect time.Duration

	// Send is how long a target may take nothing of a request that is on its
	// way to it; sockets have no such limit. 0: 60 s.
	Send time.Duration

	// ResponseHeader bounds the wait from the last byte of the request to the
	// response's header. 0: 60 s.
	ResponseHeader time.Duration

	// Idle is how long a connection to a target may carry no byte: kept for
	// reuse, within a response, or upgraded. 0: 90 s for those kept for
	// reuse, no limit within a response.
	Idle time.Duration
}

func (u Upstream) withDefaults() Upstream {
	orString := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	orDuration := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orString(&u.Login, LoginNone)
	orString(&u.Balance, BalanceLeastRequests)
	orDuration(&u.Timeouts.Connect, 5*time.Second)
	orDuration(&u.Timeouts.Send, time.Minute)
	orDuration(&u.Timeouts.ResponseHeader, time.Minute)
	if u.Concurrency != nil {
		c := *u.Concurrency
		orDuration(&c.Timeout, 5*time.Second)
		u.Concurrency = &c
	}
	if u.Health != nil {
		h := *u.Health
		orString(&h.Path, "/")
		orDuration(&h.Interval, 10*time.Second)
		orDuration(&h.Timeout, 2*time.Second)
		u.Health = &h
	}
	return u
}
