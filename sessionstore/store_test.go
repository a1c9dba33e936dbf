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
	"github.com/rbcervilla/redisstore/v9"
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

// A client chooses its ID: nothing of it may be adopted, echoed or looked up.
func TestStoreFixation(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		a.handle("/set", setQuery)
		if err := a.rdb.Set(t.Context(), "session:secret", `{"user.id":"1"}`, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		valid := NewID()
		for name, value := range map[string]string{
			"chosen":             valid,
			"short":              "AAAA",
			"empty":              "",
			"lower case":         strings.ToLower(valid),
			"too long":           valid + "A",
			"10 kB":              strings.Repeat("A", 10_000),
			"control characters": valid[:50] + "\x01\x7f" + valid[52:],
			"newline":            valid[:50] + "\r\nX: y" + valid[50:],
			"another key":        "secret",
			"our own keys":       "tandem:handle:{x}",
			"padding":            valid[:102] + "=",
		} {
			r := httptest.NewRequest("GET", "/set?a=1", nil)
			r.Header["Cookie"] = []string{"sid=" + value}
			w := httptest.NewRecorder()
			a.mux.ServeHTTP(w, r)
			cookies := w.Result().Cookies()
			if w.Code != http.StatusOK || len(cookies) != 1 || !ValidID(cookies[0].Value) {
				t.Errorf("%s: %d %v", name, w.Code, cookies)
				continue
			}
			if cookies[0].Value == value {
				t.Errorf("%s: the ID was adopted", name)
			}
			if value != "" && (strings.Contains(w.Body.String(), value) || a.rdb.Exists(t.Context(), "session:"+value).Val() != 0 && value != "secret") {
				t.Errorf("%s: the ID was echoed or used", name)
			}
		}
		if got := a.rdb.Get(t.Context(), "session:secret").Val(); got != `{"user.id":"1"}` {
			t.Errorf("another key was written: %s", got)
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

// Two requests at once change different values: both changes stay.
func TestStoreConcurrentRequests(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		loaded, release := make(chan struct{}, 2), make(chan struct{})
		a.handle("/set", setQuery)
		a.handle("/slow", func(gs *sessions.Session, r *http.Request) {
			loaded <- struct{}{}
			<-release
			setQuery(gs, r)
		})
		c := browser(t)
		a.ok(c, "/set?start=1")

		var pages sync.WaitGroup
		for _, path := range []string{"/slow?a=1", "/slow?b=2"} {
			pages.Go(func() { a.get(c, path) })
		}
		<-loaded
		<-loaded
		a.ok(c, "/set?start=2")
		close(release)
		pages.Wait()
		id := a.id(c)
		for name, want := range map[string]string{"a": `"1"`, "b": `"2"`, "start": `"2"`} {
			if got := a.stored(id, name); got != want {
				t.Errorf("%s = %s, want %s", name, got, want)
			}
		}
	})
}

// A request that was under way at logout cannot bring the session back.
func TestStoreLogoutWins(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		loaded, release := make(chan struct{}), make(chan struct{})
		a.handle("/set", setQuery)
		a.handle("/logout", func(gs *sessions.Session, _ *http.Request) { gs.Options.MaxAge = -1 })
		a.handle("/slow", func(gs *sessions.Session, r *http.Request) {
			close(loaded)
			<-release
			setQuery(gs, r)
		})
		c := browser(t)
		a.ok(c, "/set?start=1")
		id := a.id(c)

		var status int
		var set *http.Cookie
		var slow sync.WaitGroup
		slow.Go(func() { status, _, set = a.get(c, "/slow?a=1") })
		<-loaded
		a.ok(c, "/logout")
		close(release)
		slow.Wait()
		if status == http.StatusOK || set != nil {
			t.Errorf("the slow request got %d and the cookie %v", status, set)
		}
		if a.rdb.Exists(t.Context(), "session:"+id).Val() != 0 {
			t.Error("the session is back")
		}
	})
}

// When the load failed, nothing is known, and a save must not write.
func TestStoreFailedLoad(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s.Addr())
	rdb := redis.NewClient(&redis.Options{
		Addr: link.Addr(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second,
	})
	t.Cleanup(func() { _ = rdb.Close() })
	a := newApp(t, rdb, Config{})
	a.handle("/set", setQuery)
	var loadErr, saveErr, logoutErr error
	a.mux.HandleFunc("/careless", func(w http.ResponseWriter, r *http.Request) {
		var gs *sessions.Session
		gs, loadErr = a.store.Get(r, "sid")
		if _, ok := Of(gs); ok {
			t.Error("a typed session after a failed load")
		}
		link.Heal()
		gs.Values["a"] = "wiped"
		saveErr = gs.Save(r, w)
		gs.Options.MaxAge = -1
		logoutErr = gs.Save(r, w)
	})
	c := browser(t)
	a.ok(c, "/set?start=1")
	id := a.id(c)
	before := s.Client(t).Get(t.Context(), "session:"+id).Val()

	link.Cut()
	if _, _, set := a.get(c, "/careless"); set != nil {
		t.Error("a failed load changed the cookie")
	}
	if !errors.Is(loadErr, ErrUnavailable) || !errors.Is(saveErr, ErrUnavailable) || !errors.Is(logoutErr, ErrUnavailable) {
		t.Errorf("load: %v, save: %v, logout: %v; want ErrUnavailable", loadErr, saveErr, logoutErr)
	}
	if after := s.Client(t).Get(t.Context(), "session:"+id).Val(); after != before {
		t.Errorf("stored %s, was %s", after, before)
	}

	broken := `{"user.id":`
	if err := s.Client(t).Set(t.Context(), "session:"+id, broken, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	a.get(c, "/careless")
	if !errors.Is(loadErr, ErrUndecodable) || !errors.Is(saveErr, ErrUndecodable) {
		t.Errorf("load: %v, save: %v; want ErrUndecodable", loadErr, saveErr)
	}
	if after := s.Client(t).Get(t.Context(), "session:"+id).Val(); after != broken {
		t.Errorf("what cannot be decoded was written over: %s", after)
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

func check(t *testing.T, err error) {
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

// A session made by hand claims an ID that nobody loaded.
func TestStoreSessionMadeByHand(t *testing.T) {
	a := newApp(t, redistest.Mini(t).Client(t), Config{})
	r := httptest.NewRequest("GET", "/", nil)
	gs := sessions.NewSession(a.store, "sid")
	gs.ID = NewID()
	gs.Values["a"] = 1
	if err := a.store.Save(r, httptest.NewRecorder(), gs); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("save under a made-up ID: %v", err)
	}
	gs.ID = ""
	w := httptest.NewRecorder()
	if err := a.store.Save(r, w, gs); err != nil {
		t.Fatal(err)
	}
	if a.stored(gs.ID, "a") != "1" || len(w.Result().Cookies()) != 1 {
		t.Error("a session without an ID is a new one")
	}
	gs.ID = NewID()
	if err := a.store.Save(r, w, gs); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("save under an exchanged ID: %v", err)
	}
	if n := len(a.rdb.Keys(t.Context(), "session:*").Val()); n != 1 {
		t.Errorf("%d sessions stored, want 1", n)
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
	if set := w.Result().Header["Set-Cookie"]; len(set) != 1 || !strings.Contains(set[0], "Max-Age=0") || !strings.Contains(set[0], "Secure") {
		t.Errorf("clearing: %v", set)
	}
}

// stockJSON is the JSON serializer that applications write for redisstore.
type stockJSON struct{}

func (stockJSON) Serialize(s *sessions.Session) ([]byte, error) {
	m := map[string]any{}
	for k, v := range s.Values {
		m[k.(string)] = v
	}
	return json.Marshal(m)
}

func (stockJSON) Deserialize(b []byte, s *sessions.Session) error {
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for k, v := range m {
		s.Values[k] = v
	}
	return nil
}

// An unmodified redisstore application shares the cookie and the session.
func TestStoreBesideStock(t *testing.T) {
	for name, serializers := range map[string]struct {
		ours  Serializer
		stock redisstore.SessionSerializer
	}{
		"json": {JSON(), stockJSON{}},
		"gob":  {Gob(), redisstore.GobSerializer{}},
	} {
		t.Run(name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, s *redistest.Server) {
				a := newApp(t, s.Client(t), Config{Serializer: serializers.ours})
				stock, err := redisstore.NewRedisStore(t.Context(), a.rdb)
				if err != nil {
					t.Fatal(err)
				}
				stock.Serializer(serializers.stock)
				a.mux.HandleFunc("/stock", func(w http.ResponseWriter, r *http.Request) {
					gs, err := stock.Get(r, "sid")
					check(t, err)
					visits, _ := gs.Values["visits"].(string)
					gs.Values["visits"] = visits + "I"
					gs.Values["user.id"] = "7"
					check(t, gs.Save(r, w))
				})
				seen := map[any]any{}
				a.handle("/ours", func(gs *sessions.Session, r *http.Request) {
					seen = gs.Values
					setQuery(gs, r)
				})
				c := browser(t)
				a.ok(c, "/stock")
				a.ok(c, "/ours?chat.name=Ann")
				a.ok(c, "/stock")
				a.ok(c, "/ours")
				if seen["visits"] != "II" || seen["chat.name"] != "Ann" || seen["user.id"] != "7" {
					t.Errorf("our application sees %v", seen)
				}
				typed, err := a.f.Load(t.Context(), a.id(c))
				if err != nil || typed.UserID() != "7" || typed.Handle() != seen["tandem.sid"] {
					t.Errorf("the factory sees %v, %v", typed, err)
				}
			})
		})
	}
}
