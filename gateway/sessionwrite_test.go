package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// writingSite is a loginSite whose upstream asks for the changes of sessions
// that the query's "do" parameters say: /allowed/ may, /refused/ may not.
func writingSite(t *testing.T, server *redistest.Server) loginSite {
	t.Helper()
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("how") {
		case "early":
			w.Header()["X-Tandem-Session-Set"] = r.URL.Query()["do"]
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("X-Tandem-Session-Set")
		case "trailer":
			w.Header()["Trailer"] = []string{"X-Tandem-Session-Set"}
			_, _ = io.WriteString(w, "body")
			w.Header()["X-Tandem-Session-Set"] = r.URL.Query()["do"]
			w.Header()[http.TrailerPrefix+"X-Other"] = []string{"kept"}
			return
		case "cookie":
			http.SetCookie(w, &http.Cookie{Name: "tandem", Value: "the-apps-own"})
			http.SetCookie(w, &http.Cookie{Name: "other", Value: "1"})
			fallthrough
		default:
			w.Header()["X-Tandem-Session-Set"] = r.URL.Query()["do"]
		}
		_, _ = io.WriteString(w, "done")
	})
	s := newLoginSite(t, server)
	if err := s.g.Reload(routes(
		Route{Path: "/allowed", Upstream: &Upstream{Targets: []string{up.URL}, SessionWrite: true}},
		Route{Path: "/refused", Upstream: &Upstream{Targets: []string{up.URL}}},
	).Listeners); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask has the upstream ask for a change and returns the answer, with the ID
// that the client has afterwards.
func (s loginSite) ask(t *testing.T, id string, changes ...string) (answer, string) {
	t.Helper()
	a := s.get(t, "/allowed?"+url.Values{"do": changes}.Encode(), "tandem="+id)
	if strings.Contains(fmt.Sprint(a.header), "Session-Set") {
		t.Errorf("the client sees %v", a.header)
	}
	if set := regexp.MustCompile(`tandem=([A-Z2-7]*);`).FindStringSubmatch(a.header.Get("Set-Cookie")); set != nil {
		id = set[1]
	}
	return a, id
}

func (s loginSite) load(t *testing.T, id string) *sessionstore.Session {
	t.Helper()
	session, err := s.factory.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestSessionWrite(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := writingSite(t, server)

		t.Run("life", func(t *testing.T) {
			a, first := s.ask(t, "", `{"set":{"cart":[1,2,9007199254740993],"chat.name":"Zo\u00eb"}}`)
			if a.status != 200 || a.body != "done" || first == "" {
				t.Fatalf("an anonymous visitor's cart: %d %v", a.status, a.header)
			}
			session := s.load(t, first)
			if cart, _ := session.JSON("cart"); string(cart) != "[1,2,9007199254740993]" || session.UserID() != "" {
				t.Errorf("cart %s, user %q", cart, session.UserID())
			}
			if a, id := s.ask(t, first, `{"delete":["chat.name","none"]}`); a.status != 200 || id != first || a.header.Get("Set-Cookie") != "" {
				t.Errorf("a mere write: %d %v", a.status, a.header)
			}

			a, second := s.ask(t, first, `{"set":{"user.id":7,"user.name":"Ada","role":"admin"}}`)
			if a.status != 200 || second == first {
				t.Fatalf("login: %d %v", a.status, a.header)
			}
			known := s.load(t, second)
			role, _ := known.Get("role")
			id, _ := known.JSON("user.id")
			if known.Handle() != session.Handle() || known.UserID() != "7" || string(id) != "7" || known.UserName() != "Ada" || role != "admin" {
				t.Errorf("%s %q %s %q %v", known.Handle(), known.UserID(), id, known.UserName(), role)
			}
			if _, kept := known.Get("cart"); !kept {
				t.Error("the anonymous cart is lost")
			}
			if _, err := s.factory.Load(t.Context(), first); err == nil {
				t.Error("who knew the ID before the login is logged in by it")
			}

			_, third := s.ask(t, second, `{"set":{"user.id":"7"}}`)
			if again := s.load(t, third); third == second || again.Handle() != session.Handle() || again.UserName() != "Ada" {
				t.Errorf("the same user again: %s %q", again.Handle(), again.UserName())
			}

			_, other := s.ask(t, third, `{"set":{"user.id":"8","theme":"dark"}}`)
			bob := s.load(t, other)
			theme, _ := bob.Get("theme")
			_, leaked := bob.Get("role")
			if bob.Handle() == session.Handle() || bob.UserName() != "8" || theme != "dark" || leaked {
				t.Errorf("another user: %s %q %v, role %v", bob.Handle(), bob.UserName(), theme, leaked)
			}
			if _, err := s.factory.Load(t.Context(), third); err == nil {
				t.Error("the other user's session lives on")
			}

			a, none := s.ask(t, other, `{"delete":["user.id"]}`)
			if a.status != 200 || none != "" || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
				t.Errorf("logout: %d %v", a.status, a.header)
			}
			if _, err := s.factory.Load(t.Context(), other); fmt.Sprint(err) != "session ended: logout" {
				t.Errorf("after the logout: %v", err)
			}
			if a, id := s.ask(t, "", `{"set":{"user.id":null}}`); a.status != 200 || id != "" {
				t.Errorf("logout of nobody: %d", a.status)
			}
			if a, id := s.ask(t, "", `{"delete":["a"]}`); a.status != 200 || id != "" || a.header.Get("Set-Cookie") != "" {
				t.Errorf("nothing to delete, and a session for it: %d %v", a.status, a.header)
			}
		})

		t.Run("refused", func(t *testing.T) {
			ada := s.login(t, "7", "ada")
			for _, bad := range []string{
				`{`, ``, `null`, `[]`, `"set"`, `{"sets":{}}`, `{"set":[]}`, `{"set":{}}{}`, `{"delete":"a"}`, "{\"set\":{\"a\":\"\xff\"}}",
				`{"set":{"tandem.sid":"x","a":1}}`, `{"set":{"a":1},"delete":["tandem.created"]}`, `{"set":{"a":1},"delete":["a"]}`,
				`{"set":{"user.id":"","a":1}}`, `{"set":{"user.id":true,"a":1}}`, `{"set":{"user.id":{},"a":1}}`, `{"set":{"user.id":1.5,"a":1}}`,
				`{"set":{"user.id":"8","tandem.auth":"now"}}`, `{"delete":["user.id"],"set":{"a":1}}`,
				`{"set":{"a":"` + strings.Repeat("x", maxSessionSet) + `"}}`,
			} {
				a, _ := s.ask(t, ada.ID(), bad)
				if a.status != 502 || !strings.Contains(a.body, `"code":"session_write"`) || a.header.Get("Set-Cookie") != "" {
					t.Errorf("%.60s: %d %s", bad, a.status, a.body)
				}
			}
			if a, _ := s.ask(t, ada.ID(), `{"set":{"a":1}}`, `{"set":{"b":1}}`); a.status != 502 {
				t.Errorf("twice: %d", a.status)
			}
			session := s.load(t, ada.ID())
			if _, written := session.Get("a"); written || session.UserID() != "7" {
				t.Error("something was written")
			}
		})

		t.Run("not allowed", func(t *testing.T) {
			ada := s.login(t, "7", "ada")
			a := s.get(t, "/refused?do="+url.QueryEscape(`{"delete":["user.id"]}`), "tandem="+ada.ID())
			if a.status != 200 || a.body != "done" || len(a.header["Set-Cookie"]) != 0 || a.header.Get(sessionSetHeader) != "" {
				t.Errorf("%d %s %v", a.status, a.body, a.header)
			}
			s.load(t, ada.ID())
		})

		// It counts in the response's final header alone, and shows nowhere else.
		t.Run("elsewhere", func(t *testing.T) {
			ada := s.login(t, "7", "ada")
			for _, how := range []string{"early", "trailer"} {
				for _, path := range []string{"/allowed", "/refused"} {
					got := raw(t, s.g.address(), "GET "+path+"?how="+how+"&do=%7B%22delete%22:%5B%22user.id%22%5D%7D HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTE: trailers\r\nCookie: tandem="+ada.ID()+"\r\n\r\n")
					if !strings.Contains(got, "HTTP/1.1 200") || strings.Contains(got, "Session-Set") || how == "trailer" && !strings.Contains(got, "X-Other: kept") {
						t.Errorf("%s %s: %s", path, how, got)
					}
				}
			}
			s.load(t, ada.ID())
		})

		t.Run("whose cookie", func(t *testing.T) {
			a := s.get(t, "/allowed?how=cookie&do="+url.QueryEscape(`{"set":{"user.id":"7"}}`), "")
			if set := strings.Join(a.header["Set-Cookie"], "|"); strings.Contains(set, "the-apps-own") || !strings.Contains(set, "other=1") || strings.Count(set, "tandem=") != 1 {
				t.Errorf("%q", set)
			}
		})

		t.Run("ended meanwhile", func(t *testing.T) {
			ada := s.login(t, "7", "ada")
			if err := s.factory.End(t.Context(), ada.ID(), sessionstore.ReasonRevoked); err != nil {
				t.Fatal(err)
			}
			a, id := s.ask(t, ada.ID(), `{"set":{"cart":1}}`)
			if a.status != 200 || id == ada.ID() {
				t.Errorf("a visitor whose session is over: %d", a.status)
			}
		})

		t.Run("Redis away", func(t *testing.T) {
			ada := s.login(t, "7", "ada")
			server.Stop()
			for _, do := range []string{`{"set":{"a":1}}`, `{"set":{"user.id":"7"}}`, `{"delete":["user.id"]}`} {
				for _, id := range []string{ada.ID(), ""} {
					if id == "" && strings.Contains(do, "delete") {
						continue // nobody to log out
					}
					if a, _ := s.ask(t, id, do); a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("Set-Cookie") != "" {
						t.Errorf("%s: %d %v", do, a.status, a.header)
					}
				}
			}
		})
	})
}

// A session that ends while the upstream is at work is not written any more,
// and the client does not hear that it was.
func TestSessionWriteAfterItsEnd(t *testing.T) {
	s := newLoginSite(t, redistest.Mini(t))
	ada := s.login(t, "7", "ada")
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if err := s.factory.End(r.Context(), ada.ID(), sessionstore.ReasonLogout); err != nil {
			t.Error(err)
		}
		w.Header().Set(sessionSetHeader, `{"set":{"a":1}}`)
	})
	if err := s.g.Reload(toUpstream(Upstream{Targets: []string{up.URL}, SessionWrite: true}).Listeners); err != nil {
		t.Fatal(err)
	}
	if a := s.get(t, "/", "tandem="+ada.ID()); a.status != 401 || !strings.Contains(a.body, `"code":"session_ended"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestSessionWriteIsCountedAndExplained(t *testing.T) {
	var log lockedLog
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(sessionSetHeader, r.URL.Query().Get("do"))
	})
	f, err := sessionstore.New(redistest.Mini(t).Client(t), sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := routes(
		Route{Path: "/not", Upstream: &Upstream{Targets: []string{up.URL}}},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}, SessionWrite: true}},
	)
	cfg.Store, cfg.Cookie, cfg.Logger = store, "tandem", slog.New(slog.NewTextHandler(&log, nil))
	g := start(t, cfg)
	for _, do := range []string{`{"set":{"a":1}}`, `{"set":{"user.id":"7"}}`, `{"set":{"user.id":null}}`, `{"sets":1}`} {
		get(t, g.url()+"/?do="+url.QueryEscape(do))
		get(t, g.url()+"/not?do="+url.QueryEscape(do))
	}
	for _, result := range []string{"write", "login", "logout", "refused"} {
		if n := testutil.ToFloat64(g.metrics.sessionWrites.WithLabelValues(result)); n != 1 {
			t.Errorf("%s: %v", result, n)
		}
	}
	text := log.String()
	if !strings.Contains(text, `unknown field \"sets\"`) || strings.Count(text, "is ignored from now on") != 1 {
		t.Error(text)
	}
	cfg.Store = nil
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "session_write, but there is no session store") {
		t.Errorf("without a store: %v", err)
	}
}

// lockedLog is a bytes.Buffer that a gateway may write while a test reads.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
