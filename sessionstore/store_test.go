package sessionstore

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// app is an HTTP application over a Store, and a browser in front of it.
type app struct {
	t     *testing.T
	rdb   *redis.Client
	f     *Factory
	store *Store
	mux   *http.ServeMux
	srv   *httptest.Server
}

func newApp(t *testing.T, rdb *redis.Client, cfg Config) *app {
	t.Helper()
	f, err := New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	st, err := NewStore(f, StoreConfig{Cookie: "sid"})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{t: t, rdb: rdb, f: f, store: st, mux: http.NewServeMux()}
	a.srv = httptest.NewServer(a.mux)
	t.Cleanup(a.srv.Close)
	return a
}

// handle serves path with a gorilla handler that saves after fn.
func (a *app) handle(path string, fn func(gs *sessions.Session, r *http.Request)) {
	a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		gs, err := a.store.Get(r, "sid")
		if err == nil {
			fn(gs, r)
			err = gs.Save(r, w)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

// get fetches path and returns its status, body and the session cookie that
// came with it, if any.
func (a *app) get(c *http.Client, path string) (int, string, *http.Cookie) {
	a.t.Helper()
	resp, err := c.Get(a.srv.URL + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var set *http.Cookie
	for _, cookie := range resp.Cookies() {
		if cookie.Name == "sid" {
			if set != nil {
				a.t.Errorf("GET %s sets the cookie twice", path)
			}
			set = cookie
		}
	}
	return resp.StatusCode, string(body), set
}

// ok is get for a page that must work.
func (a *app) ok(c *http.Client, path string) *http.Cookie {
	a.t.Helper()
	status, body, set := a.get(c, path)
	if status != http.StatusOK {
		a.t.Fatalf("GET %s: %d %s", path, status, body)
	}
	return set
}

// id is the session ID in c's cookie jar.
func (a *app) id(c *http.Client) string {
	u, _ := url.Parse(a.srv.URL)
	for _, cookie := range c.Jar.Cookies(u) {
		if cookie.Name == "sid" {
			return cookie.Value
		}
	}
	return ""
}

// stored is an attribute as the JSON in Redis has it.
func (a *app) stored(id, name string) string {
	a.t.Helper()
	raw, err := a.rdb.Get(a.t.Context(), "session:"+id).Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	var attrs map[string]json.RawMessage
	if err := json.Unmarshal(raw, &attrs); err != nil {
		a.t.Fatal(err)
	}
	return string(attrs[name])
}

func setQuery(gs *sessions.Session, r *http.Request) {
	for name, values := range r.URL.Query() {
		gs.Values[name] = values[0]
	}
}

func TestStorePages(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		a.handle("/look", func(*sessions.Session, *http.Request) {})
		a.handle("/set", setQuery)
		a.handle("/clear", func(gs *sessions.Session, _ *http.Request) { clear(gs.Values) })
		a.handle("/renew", func(gs *sessions.Session, _ *http.Request) { gs.ID = "" })
		a.handle("/logout", func(gs *sessions.Session, _ *http.Request) { gs.Options.MaxAge = -1 })
		a.handle("/reserved", func(gs *sessions.Session, _ *http.Request) { gs.Values["tandem.sid"] = "x" })
		c := browser(t)

		if set := a.ok(c, "/look"); set != nil {
			t.Errorf("a session without values got the cookie %v", set)
		}
		if n := a.rdb.DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("a session without values left %d keys", n)
		}

		set := a.ok(c, "/set?chat.name=Ann")
		if set == nil || !set.HttpOnly || set.SameSite != http.SameSiteLaxMode || set.Path != "/" || set.MaxAge != 0 || set.Secure {
			t.Fatalf("cookie of a new session: %v", set)
		}
		id := a.id(c)
		if !ValidID(id) || a.stored(id, "chat.name") != `"Ann"` {
			t.Fatalf("ID of %d bytes, chat.name %s", len(id), a.stored(id, "chat.name"))
		}
		if set := a.ok(c, "/set?chat.color=red"); set != nil {
			t.Errorf("an unchanged ID was sent again: %v", set.Name)
		}
		handle := a.stored(id, "tandem.sid")

		a.ok(c, "/renew")
		renewed := a.id(c)
		if renewed == id || a.stored(renewed, "tandem.sid") != handle || a.stored(renewed, "chat.name") != `"Ann"` {
			t.Errorf("an emptied ID must give a new one of the same session")
		}
		if status, body, _ := a.get(c, "/reserved"); status == http.StatusOK {
			t.Errorf("a reserved attribute was changed: %s", body)
		}
		a.ok(c, "/clear")
		if a.stored(renewed, "chat.name") != "" || a.stored(renewed, "tandem.sid") != handle {
			t.Errorf("emptied Values: want the handle kept and nothing else")
		}

		if set := a.ok(c, "/logout"); set == nil || set.MaxAge >= 0 || set.Value != "" {
			t.Errorf("cookie after logout: %v", set)
		}
		if _, err := a.f.Load(t.Context(), renewed); !errors.Is(err, ErrEnded) {
			t.Errorf("load after logout: %v", err)
		}
		if a.id(c) != "" {
			t.Error("the browser still has the cookie after logout")
		}
	})
}

// A browser may send several cookies of one name; the first well-formed one
// counts.
func TestStoreSeveralCookies(t *testing.T) {
	a := newApp(t, redistest.Mini(t).Client(t), Config{})
	first, second := NewID(), NewID()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "sid=junk; sid="+first+"; sid="+second)
	if id, ok := a.store.IDFromRequest(r); !ok || id != first {
		t.Error("want the first well-formed ID")
	}
}

// The typed session and the gorilla session of one request are two views of
// one load, and neither undoes what the other did.
func TestStoreTypedAndGorilla(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		a.handle("/set", setQuery)
		a.mux.HandleFunc("/both", func(w http.ResponseWriter, r *http.Request) {
			gs, err := a.store.Get(r, "sid")
			if err != nil {
				t.Error(err)
				return
			}
			typed, err := a.store.Session(r)
			if of, ok := Of(gs); err != nil || !ok || of != typed {
				t.Errorf("Session and Of must be the same: %v", err)
				return
			}
			gs.Values["gorilla"] = 1
			check(t, typed.Set("typed", 2))
			check(t, typed.Save(r.Context()))
			check(t, typed.Set("typed late", 3))
			check(t, gs.Save(r, w))
			gs.Values["gorilla"] = 4
			check(t, gs.Save(r, w))
		})
		a.mux.HandleFunc("/typed", func(w http.ResponseWriter, r *http.Request) {
			if _, err := a.store.Session(r); err != nil {
				http.Error(w, err.Error(), http.StatusUnauthorized)
			}
		})
		c := browser(t)
		if status, body, _ := a.get(c, "/typed"); status != http.StatusUnauthorized {
			t.Errorf("typed session without a cookie: %d %s", status, body)
		}
		a.ok(c, "/set?start=1")
		a.ok(c, "/both")
		id := a.id(c)
		for name, want := range map[string]string{"start": `"1"`, "gorilla": "4", "typed": "2", "typed late": "3"} {
			if got := a.stored(id, name); got != want {
				t.Errorf("%s = %s, want %s", name, got, want)
			}
		}
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// However often a request asks, Redis is read once, and a page that changes
// nothing writes nothing.
func TestStoreReadsOnce(t *testing.T) {
	s := redistest.Start(t)
	a := newApp(t, s.Client(t), Config{})
	a.handle("/set", setQuery)
	a.mux.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			gs, err := a.store.Get(r, "sid")
			check(t, err)
			_, err = a.store.Session(r)
			check(t, err)
			check(t, gs.Save(r, w))
		}
	})
	c := browser(t)
	a.ok(c, "/set?start=1")
	a.ok(c, "/look")
	counting := &countingHook{}
	a.rdb.AddHook(counting)
	a.ok(c, "/look")
	if n := counting.trips(); n != 1 {
		t.Errorf("%d round trips for a page that looks at its session, want 1", n)
	}
}

// countingHook counts round trips: commands, and pipelines as one.
type countingHook struct {
	mu sync.Mutex
	n  int
}

func (h *countingHook) trips() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

func (h *countingHook) count() {
	h.mu.Lock()
	h.n++
	h.mu.Unlock()
}

func (h *countingHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *countingHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.count()
		return next(ctx, cmd)
	}
}

func (h *countingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.count()
		return next(ctx, cmds)
	}
}

// What the store remembers about a request's session goes with it.
func TestStoreForgetsPages(t *testing.T) {
	a := newApp(t, redistest.Mini(t).Client(t), Config{})
	for range 10 {
		if _, err := a.store.Get(httptest.NewRequest("GET", "/", nil), "sid"); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		a.store.pages.mu.RLock()
		n := len(a.store.pages.pages)
		a.store.pages.mu.RUnlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d pages remembered after their requests", n)
		}
		runtime.Gosched()
	}
}

func TestStoreConfig(t *testing.T) {
	f, err := New(redistest.Mini(t).Client(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]StoreConfig{
		"bad name":      {Cookie: "a b"},
		"__Host- path":  {Cookie: "__Host-t", Options: sessions.Options{Path: "/x"}},
		"__Host- site":  {Cookie: "__Host-t", Options: sessions.Options{Domain: "example.com"}},
		"negative life": {Options: sessions.Options{MaxAge: -1}},
	} {
		if _, err := NewStore(f, cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}

	st, err := NewStore(f, StoreConfig{Cookie: "__Host-tandem", Options: sessions.Options{MaxAge: 60}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s := f.New()
	check(t, s.Set("a", 1))
	check(t, s.Save(t.Context()))
	r := httptest.NewRequest("GET", "/", nil)
	st.SetCookie(w, r, s)
	st.SetCookie(w, r, s)
	set := w.Result().Cookies()
	if len(set) != 1 || !set[0].Secure || !set[0].HttpOnly || set[0].MaxAge != 60 || set[0].Value != s.ID() {
		t.Errorf("cookies: %v", set)
	}
	st.ClearCookie(w, r)
	if set := w.Header()["Set-Cookie"]; len(set) != 1 || !strings.Contains(set[0], "Max-Age=0") || !strings.Contains(set[0], "Secure") {
		t.Errorf("clearing: %v", set)
	}
}
