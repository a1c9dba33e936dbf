package sessionstore

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

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

// What a handler decided about the cookie by itself, a later Save of the
// gorilla session (often a middleware's) leaves as it is.
func TestStoreLeavesTheHandlersCookie(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		a.store.options.MaxAge = 3600 // every save would set the cookie
		a.handle("/set", setQuery)
		serve := func(path string, fn func(w http.ResponseWriter, r *http.Request, s *Session)) {
			a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
				typed, err := a.store.Session(r)
				if err != nil {
					t.Error(err)
					return
				}
				fn(w, r, typed)
				check(t, sessions.Save(r, w))
			})
		}
		login := func(user string) func(w http.ResponseWriter, r *http.Request, s *Session) {
			return func(w http.ResponseWriter, r *http.Request, s *Session) {
				logged, err := a.f.Login(r.Context(), s, Login{UserID: user})
				if err != nil {
					t.Error(err)
					return
				}
				a.store.SetCookie(w, r, logged)
			}
		}
		serve("/login/1", login("1"))
		serve("/login/2", login("2"))
		serve("/logout", func(w http.ResponseWriter, r *http.Request, s *Session) {
			check(t, s.Destroy(r.Context(), ReasonLogout))
			a.store.ClearCookie(w, r)
		})
		c := browser(t)
		if set := a.ok(c, "/set?a=1"); set == nil || set.MaxAge != 3600 {
			t.Errorf("cookie %v", set)
		}
		for _, user := range []string{"1", "2"} {
			a.ok(c, "/login/"+user)
			typed, err := a.f.Load(t.Context(), a.id(c))
			if err != nil {
				t.Fatalf("after login as %s: %v", user, err)
			}
			if typed.UserID() != user {
				t.Errorf("user %q after login as %s", typed.UserID(), user)
			}
		}
		a.ok(c, "/logout")
		if a.id(c) != "" {
			t.Error("the browser still has the cookie after logout")
		}
	})
}

// A request that comes with an ID replaced a moment ago is served and gets
// the new one; one that comes with an ID from before a login is nobody's, and cannot save.
func TestStoreReplacedID(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a := newApp(t, s.Client(t), Config{})
		a.handle("/set", setQuery)
		c := browser(t)
		a.ok(c, "/set?a=1")
		old := &http.Cookie{Name: "sid", Value: a.id(c)}
		typed, err := a.f.Load(t.Context(), old.Value)
		check(t, err)
		check(t, typed.Rotate(t.Context(), nil))

		send := func() string {
			r := httptest.NewRequest("GET", "/set?b=2", nil)
			r.AddCookie(old)
			w := httptest.NewRecorder()
			a.mux.ServeHTTP(w, r)
			if cookies := w.Result().Cookies(); w.Code == http.StatusOK && len(cookies) == 1 {
				return cookies[0].Value
			}
			t.Fatalf("%d, cookies %v", w.Code, w.Header()["Set-Cookie"])
			return ""
		}
		if send() != typed.ID() || a.stored(typed.ID(), "b") != `"2"` {
			t.Error("within the grace the request must reach the session and learn its ID")
		}
		old.Value = typed.ID()
		check(t, typed.Rotate(t.Context(), &Login{UserID: "7"}))
		// A new session's cookie would take the place of the login's.
		r := httptest.NewRequest("GET", "/set?b=3", nil)
		r.AddCookie(old)
		w := httptest.NewRecorder()
		a.mux.ServeHTTP(w, r)
		if w.Code == http.StatusOK || len(w.Result().Cookies()) != 0 || a.stored(typed.ID(), "b") != `"2"` {
			t.Errorf("with the ID from before the login: %d, cookies %v", w.Code, w.Header()["Set-Cookie"])
		}
	})
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
