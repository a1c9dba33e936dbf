package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
)

// proxy passes requests of one route on to the targets of its upstream.
type proxy struct {
	g       *Gateway
	route   *route
	cfg     Upstream // defaults filled in
	pool    *pool
	reverse *httputil.ReverseProxy

	ignored atomic.Bool // it was logged that the session may not be written
}

func newProxy(g *Gateway, r *route, cfg Upstream) (*proxy, error) {
	pool, err := newPool(g, cfg)
	if err != nil {
		return nil, err
	}
	p := &proxy{g: g, route: r, cfg: cfg, pool: pool}
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      pool,
		ModifyResponse: p.modifyResponse,
		ErrorHandler:   p.fail,
		BufferPool:     copyBuffers,
		ErrorLog:       slog.NewLogLogger(g.log.Handler(), slog.LevelDebug), // the exchange tells
	}
	return p, nil
}

func (p *proxy) start() { p.pool.start() }
func (p *proxy) close() { p.pool.close() }

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchangeFrom(r.Context())
	if p.g.draining.Load() && isUpgrade(r.Header) {
		x.refuse(r, reasonDraining, nil)
		return
	}
	x.request = r
	if !x.admit(r, p.cfg.Login) {
		return
	}
	if p.cfg.Login == LoginRequired && p.g.cfg.Bind != nil {
		defer x.unbind()
		if !isUpgrade(r.Header) {
			r = x.stream(r)
		} else if !x.bind(r) {
			return
		}
	}
	if r.Body != http.NoBody {
		x.body = &clientBody{ReadCloser: r.Body}
		defer x.settleBody(r)
		if r.ProtoMajor == 1 {
			// Else net/http swallows what is left of the request's body when
			// the response begins. It fails for writers without that mode.
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
	}
	x.cookies = x.Header()["Set-Cookie"]
	p.reverse.ServeHTTP(w, r)
}

// rewrite makes the request to the upstream. It runs after ReverseProxy has
// removed the hop-by-hop headers, those that the client named in Connection
// too: what is set here cannot be taken away by the client.
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeFrom(pr.In.Context())
	h := pr.Out.Header
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // as it came; nothing here depends on it
	if p.cfg.StripPrefix {
		p.stripPrefix(pr)
	}
	pr.Out.Host = x.origin.sent
	x.origin.set(h)
	h[requestIDHeader] = x.id
	x.who.set(h)
	if p.cfg.Assertion && x.who.user != "" {
		p.assert(x, h)
	}
	if !p.cfg.ForwardCookie && p.g.cfg.Cookie != "" {
		removeCookie(h, p.g.cfg.Cookie)
	}
	if !isUpgrade(h) {
		// "h2c" and its like would tunnel requests past these checks.
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	if pr.Out.Body != nil {
		pr.Out.Body = x.body
	}
}

// isUpgrade reports whether a request asks for a socket.
func isUpgrade(h http.Header) bool { return strings.EqualFold(h.Get("Upgrade"), "websocket") }

// stripPrefix takes the route's path away, in the decoded path and in its
// spelling on the wire alike.
func (p *proxy) stripPrefix(pr *httputil.ProxyRequest) {
	u := pr.Out.URL
	if !strings.HasPrefix(u.Path, p.route.prefix) {
		u.Path, _ = cleanPath(u.Path) // the route was found with repeated slashes merged
		u.RawPath = ""
	}
	u.Path = "/" + strings.TrimLeft(strings.TrimPrefix(u.Path, p.route.prefix), "/")
	if raw, ok := strings.CutPrefix(u.RawPath, p.route.prefix); ok {
		u.RawPath = "/" + strings.TrimLeft(raw, "/")
	} else {
		u.RawPath = "" // the prefix was spelled with escapes
	}
}

// modifyResponse keeps the request ID the gateway's own and does what the
// upstream wants of the session; nothing else of a response is altered. An
// upstream that shares the session may set its cookie, and has the last word
// then.
func (p *proxy) modifyResponse(res *http.Response) error {
	delete(res.Header, requestIDHeader)
	delete(res.Trailer, requestIDHeader)
	x := exchangeFrom(res.Request.Context())
	x.afterInterim()
	if res.StatusCode < 100 {
		return &refusal{reasonUpstreamProtocol, fmt.Errorf("status %d", res.StatusCode)}
	}
	if err := p.writeSession(x, res); err != nil {
		return err
	}
	if x.long != nil {
		if err := x.long.begins(res.Header); err != nil {
			return err
		}
	}
	x.expected = res.ContentLength
	if _, typed := res.Header["Content-Type"]; !typed {
		x.Header()["Content-Type"] = nil // else net/http guesses one
	}
	for _, line := range res.Header["Set-Cookie"] {
		if name, _, _ := strings.Cut(line, "="); strings.TrimSpace(name) == p.g.cfg.Cookie {
			x.Header().Del("Set-Cookie") // the gateway's own renewal of it
		}
	}
	return nil
}

// fail answers for an upstream that did not.
func (p *proxy) fail(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeFrom(r.Context())
	x.afterInterim()
	var decided *refusal
	if errors.As(err, &decided) {
		x.refuse(r, decided.why, decided.cause)
		return
	}
	x.refuse(r, failureOf(r.Context(), x.body, err), err)
}

// bufferPool lends the buffers that bodies are copied through: one for each
// direction that flows, whatever the size of the body.
type bufferPool struct{ pool sync.Pool }

const copyBufferSize = 32 << 10

var copyBuffers = &bufferPool{sync.Pool{New: func() any { return new([copyBufferSize]byte) }}}

func (b *bufferPool) Get() []byte  { return b.pool.Get().(*[copyBufferSize]byte)[:] }
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[copyBufferSize]byte)(p)) }
