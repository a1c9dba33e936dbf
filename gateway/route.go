package gateway

import (
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
)

// Kinds of routes beside the names in Config.Handlers: metric labels.
const (
	kindUpstream = "upstream"
	kindFiles    = "files"
	kindTCP      = "tcp"
	kindHTTP     = "http" // connections only; a request has a route
	kindRedirect = "redirect"
	kindNone     = "none" // no route matched
)

// table is the routes of one listener. It is replaced as a whole: requests
// that began on an old one finish on it.
type table struct {
	routes  []*route
	tcp     *tcpRoute // the only route of a TCP listener, else nil
	users   sync.WaitGroup
	starts  []func() // of the routes: background work, begun by start
	closers []func() // of the routes: ends that work
	limits  Limits   // defaults filled in
}

// route is one way through the gateway.
type route struct {
	name    string   // for people: "api.example.test/v1/"
	kind    string   // kindUpstream, kindFiles, or a name in Config.Handlers
	host    string   // lower case; "" any; ".example.test" for the wildcard
	methods []string // none: any
	prefix  string   // without the slash at its end; "" matches every path
	handler http.Handler
	limiter *limiter // nil: no limit
	maxBody int64    // bytes; 0: the listener's limit; negative: none
}

// noRoute stands in where no route matched.
var noRoute = &route{kind: kindNone}

// newTable makes the table of a valid listener. Its background work begins
// with start.
func newTable(g *Gateway, l Listener) (*table, error) {
	t := &table{limits: l.Limits.withDefaults()}
	if l.TCP != nil {
		t.tcp = newTCPRoute(g, *l.TCP)
		t.starts, t.closers = append(t.starts, t.tcp.start), append(t.closers, t.tcp.close)
		return t, nil
	}
	if l.Redirect != "" {
		port, _ := redirectPort(l.Redirect)
		t.routes = []*route{{name: "/", kind: kindRedirect, handler: redirect{g, port}}}
		return t, nil
	}
	if g.cfg.Signer != nil {
		t.routes = append(t.routes, &route{name: jwksPath, kind: kindJWKS, prefix: jwksPath, handler: g.cfg.Signer})
	}
	for _, r := range l.effectiveRoutes() {
		made := &route{
			name:    r.Host + "/" + strings.TrimPrefix(r.Path, "/"),
			host:    strings.TrimPrefix(strings.ToLower(r.Host), "*"),
			prefix:  strings.TrimSuffix(r.Path, "/"),
			maxBody: r.MaxBody,
			methods: r.Methods,
		}
		if r.Rate != nil {
			made.limiter = newLimiter(r.Rate.withDefaults())
		}
		switch {
		case r.Upstream != nil:
			p, err := newProxy(g, made, r.Upstream.withDefaults())
			if err != nil {
				t.close()
				return nil, err
			}
			made.kind, made.handler = kindUpstream, p
			t.starts = append(t.starts, p.start)
			t.closers = append(t.closers, p.close)
		case r.Files != nil:
			f, err := newFileServer(g, made.prefix, *r.Files)
			if err != nil {
				t.close()
				return nil, err
			}
			made.kind, made.handler = kindFiles, f
		default:
			made.kind, made.handler = r.Use, g.cfg.Handlers[r.Use]
		}
		t.routes = append(t.routes, made)
	}
	return t, nil
}

func (t *table) start() {
	for _, start := range t.starts {
		start()
	}
}

// end waits until a table that is not in force any more has no users, then
// ends its background work.
func (t *table) end() {
	t.users.Wait()
	t.close()
}

// close ends the background work of a table without users.
func (t *table) close() {
	for _, stop := range t.closers {
		stop()
	}
}

// match returns the first route for a normalised host, a clean path and a
// method, or noRoute.
func (t *table) match(host, path, method string) *route {
	for _, r := range t.routes {
		if r.matchesHost(host) && r.matchesPath(path) && r.matchesMethod(method) {
			return r
		}
	}
	return noRoute
}

func (r *route) matchesHost(host string) bool {
	if r.host == "" || r.host[0] != '.' {
		return r.host == "" || r.host == host
	}
	label, ok := strings.CutSuffix(host, r.host)
	return ok && label != "" && !strings.Contains(label, ".")
}

func (r *route) matchesPath(path string) bool {
	rest, ok := strings.CutPrefix(path, r.prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func (r *route) matchesMethod(method string) bool {
	return len(r.methods) == 0 || slices.Contains(r.methods, method) ||
		method == http.MethodHead && slices.Contains(r.methods, http.MethodGet)
}

// normalHost takes the port and a final dot from a Host header and folds its
// case.
func normalHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// cleanPath returns the decoded path that is routed: with repeated slashes
// merged. It refuses a path that a server further inside could read as
// leading elsewhere than the route that was checked: dot segments, also
// behind a backslash or with parameters ("..;x"), and NUL. No client that
// follows RFC 3986 sends them.
func cleanPath(p string) (clean string, ok bool) {
	switch {
	case p == "":
		return "/", true
	case p[0] != '/' || strings.IndexByte(p, 0) >= 0:
		return "", false
	}
	if strings.Contains(p, "/.") || strings.Contains(p, `\.`) {
		isSlash := func(r rune) bool { return r == '/' || r == '\\' }
		if slices.ContainsFunc(strings.FieldsFunc(p, isSlash), isDotSegment) {
			return "", false
		}
	}
	if strings.Contains(p, "//") {
		clean = path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		return clean, true
	}
	return p, true
}

func isDotSegment(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	return name == "." || name == ".."
}

// acquire returns the routes that are in force, and counts the caller among
// their users until it calls users.Done.
func (l *listener) acquire() *table {
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.table.users.Add(1)
	return l.table
}

// swap puts new routes in force and returns the old ones, which get no
// further users.
func (l *listener) swap(t *table) (old *table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, l.table = l.table, t
	return old
}

// retire ends the routes of a listener that accepts nothing more, and returns
// them. A connection that was accepted in the last moment finds none: were
// the old ones left in force, it could become their user while they end.
func (l *listener) retire() *table {
	old := l.swap(&table{})
	old.end()
	return old
}
