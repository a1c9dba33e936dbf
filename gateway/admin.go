package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// AdminConfig is the listener for operators and monitoring.
type AdminConfig struct {
	Address string // host:port; empty: no admin listener
	Token   string // bearer token of /admin/v1/; empty: that is closed, with 403

	Gatherer prometheus.Gatherer // of /metrics; nil: 404
	Checks   []Check             // of /readyz
	Draining func() bool         // part of /readyz; nil: never

	Sessions SessionAdmin // nil: the session endpoints answer 404

	// ExtraConnections are listed beside the gateway's own sessions, and
	// SocketCounts tells how many sockets each of these user sessions has, over
	// all replicas, in their order. Nil: none.
	ExtraConnections func() []ConnectionInfo
	SocketCounts     func(ctx context.Context, handles []string) []int

	// Reload reads the configuration again and puts it in force; the error
	// says what is wrong with it, one fault a line. Nil: 404.
	Reload func() error

	// Mux adds handlers under /admin/v1/, behind the token, by path pattern
	// ("documents/"). They see the path from there: "/documents/…".
	Mux map[string]http.Handler
}

// Check is one condition of readiness. Probe returns nil when it holds; it
// must answer at once, from what is known already.
type Check struct {
	Name  string
	Probe func() error
}

// SessionAdmin is what the admin API does with user sessions; it is a
// *sessionstore.Factory. Errors are those of that package.
type SessionAdmin interface {
	// List returns a user's live sessions, or everybody's for "".
	List(ctx context.Context, userID string) ([]sessionstore.Info, error)
	// Find returns the live sessions of the user with this ID, or else name.
	Find(ctx context.Context, user string) ([]sessionstore.Info, error)
	// EndHandle ends one session; ErrNotFound or ErrEnded if there is none.
	EndHandle(ctx context.Context, handle string, reason sessionstore.Reason) error
	// EndUser ends a user's sessions, but for one handle, and tells how many.
	EndUser(ctx context.Context, userID string, reason sessionstore.Reason, exceptHandle string) (int, error)
}

// admin is the admin listener.
type admin struct {
	// Fixed after construction.
	g      *Gateway
	cfg    AdminConfig
	token  [sha256.Size]byte
	server *http.Server
	socket *net.TCPListener // set by listen
}

func newAdmin(g *Gateway, cfg AdminConfig) *admin {
	a := &admin{g: g, cfg: cfg, token: sha256.Sum256([]byte(cfg.Token))}
	a.server = &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.handlerLog().Handler(), slog.LevelDebug),
	}
	return a
}

func (a *admin) listen() (err error) {
	a.socket, err = listenTCP(a.cfg.Address)
	return err
}

func (a *admin) serve() error {
	if err := a.server.Serve(a.socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *admin) close() {
	_ = a.server.Close()
	if a.socket != nil {
		_ = a.socket.Close()
	}
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", a.ready)
	if a.cfg.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{}))
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/admin/v1/", a.authorized(http.StripPrefix("/admin/v1", a.api())))
	return mux
}

// authorized lets requests through that carry the token.
func (a *admin) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.cfg.Token == "" {
			problem.JSON(w, problem.Problem{
				Status: http.StatusForbidden, Code: "admin_disabled",
				Detail: "The admin API is off: write a token to a file and name it in the configuration as admin.token_file.",
			})
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		given := sha256.Sum256([]byte(strings.TrimSpace(token))) // of one length, whatever was sent
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(given[:], a.token[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem.JSON(w, problem.Problem{Status: http.StatusUnauthorized, Code: "bad_token", Detail: "Send the admin token as Authorization: Bearer …"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// checkResult is one line of /readyz.
type checkResult struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// ready tells whether this replica should get traffic, and for each check how
// it stands.
func (a *admin) ready(w http.ResponseWriter, _ *http.Request) {
	body := struct {
		Status string                 `json:"status"` // "ok" or "unavailable"
		Checks map[string]checkResult `json:"checks"`
	}{"ok", map[string]checkResult{}}
	note := func(name string, err error) {
		result := checkResult{OK: err == nil}
		if err != nil {
			body.Status, result.Error = "unavailable", err.Error()
		}
		body.Checks[name] = result
	}
	for _, c := range a.cfg.Checks {
		note(c.Name, c.Probe())
	}
	note("draining", a.draining())
	status := http.StatusOK
	if body.Status != "ok" {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, body)
}

func (a *admin) draining() error {
	a.g.mu.Lock()
	closing := a.g.closing
	a.g.mu.Unlock()
	if closing || a.cfg.Draining != nil && a.cfg.Draining() {
		return errors.New("shutting down")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The status is out; an error now means that the client has gone.
	_ = json.NewEncoder(w).Encode(body)
}
