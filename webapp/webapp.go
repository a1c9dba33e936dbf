// Package webapp serves Tandem's pages, the JSON API of the page's session,
// and the JavaScript client of shared documents.
package webapp

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

// Who may register: values of Config.Registration.
const (
	RegisterFirstUser = "first-user" // as long as there is no account
	RegisterOpen      = "open"       // everybody
	RegisterClosed    = "closed"     // nobody
)

// Config of the web app.
type Config struct {
	Store    *sessionstore.Store   // required: the sessions of requests
	Factory  *sessionstore.Factory // required: the same sessions, by handle and user
	Accounts *accounts.Accounts    // required

	// Registration is RegisterFirstUser (also when empty), RegisterOpen or
	// RegisterClosed.
	Registration string

	// Available tells, without I/O, whether the session store is known to
	// answer. While it does not, what needs a session is 503 to visitors
	// without one, too: they could not log in. Nil: always.
	Available func() bool

	// Readable and Writable are the attributes that page scripts may read
	// and write over the API. Zero: none.
	Readable, Writable sessionstore.Patterns

	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: nothing is registered
}

// app is the web app. Everything but anyAccount is fixed after construction.
type app struct {
	Config
	log     *slog.Logger
	metrics metrics
	mux     *http.ServeMux

	// anyAccount remembers that there was an account, so that pages need not
	// ask whether to offer registration of the first user.
	anyAccount atomic.Bool
}

// New checks cfg and returns the web app, to be served at "/". It does no
// I/O. Every response of it refuses foreign origins, frames and inline
// scripts.
func New(cfg Config) (http.Handler, error) {
	if cfg.Store == nil || cfg.Factory == nil || cfg.Accounts == nil {
		return nil, errors.New("webapp: Store, Factory and Accounts are required")
	}
	switch cfg.Registration {
	case "":
		cfg.Registration = RegisterFirstUser
	case RegisterFirstUser, RegisterOpen, RegisterClosed:
	default:
		return nil, fmt.Errorf("webapp: registration %q is none of first-user, open, closed", cfg.Registration)
	}
	if cfg.Available == nil {
		cfg.Available = func() bool { return true }
	}
	a := &app{Config: cfg, log: cfg.Logger, mux: http.NewServeMux()}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if a.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	a.routes()

	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, problem.Problem{
			Status: http.StatusForbidden, Code: "cross_origin",
			Detail: "This request came from another site. Only pages of this one may send it.",
		})
	}))
	return secure(protection.Handler(http.HandlerFunc(a.dispatch))), nil
}

func (a *app) routes() {
	for pattern, handler := range map[string]http.HandlerFunc{
		"GET /{$}":         a.home,
		"GET /static/":     serveAsset,
		"GET /favicon.ico": serveFavicon,

		"GET /login":     a.loginForm,
		"POST /login":    a.login,
		"GET /register":  a.registerForm,
		"POST /register": a.register,
		"POST /logout":   a.logout,

		"GET /account":                           a.account,
		"POST /account/chat-name":                a.setChatName,
		"POST /account/sessions/revoke-others":   a.revokeOthers,
		"POST /account/sessions/{handle}/revoke": a.revoke,
		"GET /documents":                         a.openRoom,
		"GET /documents/{id}":                    a.document,
		"GET /pairs":                             a.openRoom,
		"GET /pairs/{id}":                        a.pair,
		"GET /pairs/{id}/qr.svg":                 a.pairQR,

		"GET /auth/verify": a.verify,

		"GET /api/session":        a.getSession,
		"PATCH /api/session":      a.patchSession,
		"POST /api/session/renew": a.renewSession,
		"POST /api/tickets":       a.issueTicket,
	} {
		a.mux.HandleFunc(pattern, handler)
	}
}

// dispatch is the mux, with its refusals said in our words.
func (a *app) dispatch(w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(sessionstore.WithMeta(r.Context(), sessionstore.Meta{
		UserAgent: r.UserAgent(), Address: clientAddress(r),
	}))
	if _, pattern := a.mux.Handler(r); pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	refusal := refusal{header: http.Header{}}
	a.mux.ServeHTTP(&refusal, r)
	if refusal.status == http.StatusMethodNotAllowed {
		allow := refusal.header.Get("Allow")
		w.Header().Set("Allow", allow)
		a.fail(w, r, problem.Problem{
			Status: refusal.status, Code: "method_not_allowed", Detail: "Allowed here: " + allow + ".",
		})
		return
	}
	a.fail(w, r, problem.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "There is nothing at this address."})
}

// refusal takes what the mux answers when no route matches.
type refusal struct {
	header http.Header
	status int
}

func (f *refusal) Header() http.Header         { return f.header }
func (f *refusal) Write(p []byte) (int, error) { return len(p), nil }
func (f *refusal) WriteHeader(status int)      { f.status = status }

// contentSecurityPolicy allows our own files and sockets, and nothing inline.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; " +
	"connect-src 'self' ws: wss:; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // static files say otherwise
		next.ServeHTTP(w, r)
	})
}

// clientAddress is the peer's address without its port.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
