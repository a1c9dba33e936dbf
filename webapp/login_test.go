package webapp_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

func TestLoginAndLogout(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		u := s.add(t, "Ada")
		b := s.browser(t)
		a := b.post("/login", url.Values{"username": {" aDA "}, "password": {password}, "next": {"/documents/x?y=1"}})
		if a.status != http.StatusSeeOther || a.header.Get("Location") != "/documents/x?y=1" {
			t.Fatalf("login: %d to %s", a.status, a.header.Get("Location"))
		}
		if c := a.header.Get("Set-Cookie"); !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || !strings.Contains(c, "Path=/") {
			t.Errorf("cookie attributes: %s", sessionID.ReplaceAllString(c, "…"))
		}
		v := b.session()
		if v.User == nil || v.User.ID != u.ID || v.User.Name != "Ada" || !sessionstore.ValidHandle(*v.Handle) || v.Values["user.name"] != "Ada" {
			t.Errorf("session: %+v", v)
		}
		if _, leaked := v.Values["user.id"]; leaked {
			t.Errorf("not readable, but shown: %v", keys(v.Values))
		}
		if home := b.get("/").body; !strings.Contains(home, "Ada") || !strings.Contains(home, "Log out") {
			t.Error("home does not know who is logged in")
		}
		old := b.cookie()
		a = b.post("/logout", nil)
		if a.status != http.StatusSeeOther || a.header.Get("Location") != "/" || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("logout: %d %v", a.status, a.header)
		}
		if v := b.session(); v.User != nil || v.Handle != nil || len(v.Values) != 0 || v.Values == nil || v.ExpiresAt != nil {
			t.Errorf("after logout: %+v", v)
		}
		// The old cookie is worth nothing, and nothing brings it back.
		stale := s.browser(t)
		for _, method := range []string{"GET", "PATCH"} {
			a := stale.do(method, "/api/session", `{"set":{"chat.name":"x"}}`, "Cookie", "tandem="+old, "Content-Type", "application/json")
			if strings.Contains(a.body, u.ID) || strings.Contains(a.header.Get("Set-Cookie"), old) {
				t.Errorf("%s with the old cookie: %d %s", method, a.status, a.body)
			}
		}
		if a := b.post("/logout", nil); a.status != http.StatusSeeOther {
			t.Errorf("logout of nobody: %d", a.status)
		}
	})
}

func TestLoginRotates(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		s.add(t, "bob")
		b := s.browser(t)
		if a := b.patch(`{"set":{"chat.name":"guest"}}`); a.status != 200 {
			t.Fatalf("anonymous PATCH: %d %s", a.status, a.body)
		}
		guest, guestID := b.session(), b.cookie()
		if guest.User != nil || guest.Handle == nil || guest.Values["chat.name"] != "guest" {
			t.Fatalf("anonymous session: %+v", guest)
		}
		b.login("ada")
		first, firstID := b.session(), b.cookie()
		if *first.Handle != *guest.Handle || first.Values["chat.name"] != "guest" || firstID == guestID {
			t.Errorf("login in an anonymous session: %+v, ID kept: %v", first, firstID == guestID)
		}
		b.login("ada")
		if again := b.session(); *again.Handle != *first.Handle || b.cookie() == firstID {
			t.Errorf("login again: %+v", again)
		}
		b.login("bob")
		other := b.session()
		if *other.Handle == *first.Handle || other.User.Name != "bob" || other.Values["chat.name"] != nil {
			t.Errorf("login of another: %+v", other)
		}
		if list, err := s.factory.List(t.Context(), first.User.ID); err != nil || len(list) != 0 {
			t.Errorf("the first user's sessions: %+v, %v", list, err)
		}
		// Who held the ID from before the login does not become logged in.
		thief := s.browser(t)
		if a := thief.do("GET", "/api/session", "", "Cookie", "tandem="+guestID); strings.Contains(a.body, first.User.ID) {
			t.Errorf("session fixation: %s", a.body)
		}
	})
}

func TestLoginRefusals(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "closed")
	s.add(t, "ada")
	b := s.browser(t)
	for name, c := range map[string]struct {
		form   url.Values
		status int
		says   string
	}{
		"wrong password": {url.Values{"username": {"ada"}, "password": {"wrong"}}, 401, "Wrong name or password."},
		"unknown name":   {url.Values{"username": {"eve"}, "password": {"wrong"}}, 401, "Wrong name or password."},
		"no password":    {url.Values{"username": {"ada"}}, 400, "Fill in"},
		"nothing":        {nil, 400, "Fill in"},
		"hostile name":   {url.Values{"username": {`"><script>alert(1)</script>`}, "password": {"x"}}, 401, "&lt;script&gt;"},
		"too large":      {url.Values{"username": {"ada"}, "password": {strings.Repeat("x", 20_000)}}, 413, "too large"},
	} {
		a := b.post("/login", c.form)
		if a.status != c.status || !strings.Contains(a.body, c.says) || len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %v %s", name, a.status, a.header["Set-Cookie"], a.body)
		}
		if c.form.Get("password") != "" && strings.Contains(a.body, `value="`+c.form.Get("password")) {
			t.Errorf("%s: the page repeats the password", name)
		}
	}
	if a := b.do("POST", "/login", "username=ada&password=no", "Content-Type", "application/x-www-form-urlencoded"); problemCode(t, a) != "bad_credentials" {
		t.Errorf("for a program: %d %s", a.status, a.body)
	}
	if a := b.do("POST", "/login?username=ada&password="+url.QueryEscape(password), ""); a.status != 400 {
		t.Errorf("a password in the URL is taken: %d", a.status)
	}
}

func TestForeignOrigin(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "open")
	s.add(t, "ada")
	b := s.browser(t)
	b.login("ada")
	form := url.Values{"username": {"ada"}, "password": {password}, "name": {"x"}}
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "null"}} {
		for _, path := range []string{"/login", "/logout", "/register", "/account/chat-name", "/account/sessions/revoke-others", "/api/tickets"} {
			if a := b.post(path, form, header...); a.status != http.StatusForbidden {
				t.Errorf("POST %s with %v: %d", path, header, a.status)
			}
		}
		if a := b.do("PATCH", "/api/session", `{}`, append(header, "Content-Type", "application/json")...); problemCode(t, a) != "cross_origin" {
			t.Errorf("PATCH with %v: %d", header, a.status)
		}
	}
	if a := b.post("/account/chat-name", form, "Origin", s.url, "Sec-Fetch-Site", "same-origin"); a.status != http.StatusSeeOther {
		t.Errorf("our own origin: %d", a.status)
	}
	if v := b.session(); v.User == nil || v.Values["chat.name"] != "x" {
		t.Errorf("afterwards: %+v", v)
	}
}

func TestNoOpenRedirect(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "closed")
	s.add(t, "ada")
	for _, next := range []string{
		"", "//evil.example", `/\evil.example`, `\\evil.example`, "///evil.example", "/\t/evil.example", "\t//evil.example", "https://evil.example/",
		"https:evil.example", "javascript:alert(1)", "/\n/evil.example", "/%2f/evil.example", "/%5cevil.example", "/%09/evil.example",
		"evil.example", "?x", "#x", "/a\x00", "/a\x7f", "/%zz", "@evil.example", "/" + strings.Repeat("x", 3000),
	} {
		b := s.browser(t)
		for _, a := range []answer{
			b.post("/login", url.Values{"username": {"ada"}, "password": {password}, "next": {next}}),
			b.post("/login?next="+url.QueryEscape(next), url.Values{"username": {"ada"}, "password": {password}}),
		} {
			if got := a.header.Get("Location"); got != "/" {
				t.Errorf("next=%q leads to %q", next, got)
			}
		}
		if a := b.get("/login?next=" + url.QueryEscape(next)); strings.Contains(a.body, `name="next"`) {
			t.Errorf("the form keeps next=%q", next)
		}
	}
	for _, next := range []string{"/account", "/documents/a:b~c?x=//y#z", "/a%20b", "/ü"} {
		a := s.browser(t).post("/login", url.Values{"username": {"ada"}, "password": {password}, "next": {next}})
		if got, err := url.Parse(a.header.Get("Location")); err != nil || got.Host != "" || !strings.HasPrefix(got.Path, next[:2]) {
			t.Errorf("next=%q leads to %q", next, a.header.Get("Location"))
		}
	}
}

// After ten failures the right password waits too, on every replica.
func TestLoginThrottle(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		one, two := newSite(t, r, "closed"), newSite(t, r, "closed")
		one.add(t, "ada")
		for i := range 10 {
			b := []*site{one, two}[i%2].browser(t)
			if a := b.post("/login", url.Values{"username": {"ada"}, "password": {"wrong"}}); a.status != http.StatusUnauthorized {
				t.Fatalf("failure %d: %d", i, a.status)
			}
		}
		for _, s := range []*site{one, two} {
			a := s.browser(t).post("/login", url.Values{"username": {"ada"}, "password": {password}})
			if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || len(a.header["Set-Cookie"]) > 0 {
				t.Errorf("the right password: %d %v", a.status, a.header)
			}
		}
	})
}

func TestRegistration(t *testing.T) {
	form := func(name, password string) url.Values { return url.Values{"username": {name}, "password": {password}} }
	t.Run("first-user", func(t *testing.T) {
		redistest.Each(t, func(t *testing.T, r *redistest.Server) {
			sites := []*site{newSite(t, r, "first-user"), newSite(t, r, "first-user")}
			if !strings.Contains(sites[0].browser(t).get("/").body, "Create the first account") {
				t.Error("home does not offer the first account")
			}
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				b := sites[i%2].browser(t)
				wg.Go(func() {
					a := b.post("/register", form("user"+string(rune('a'+i)), password))
					switch a.status {
					case http.StatusSeeOther:
						won.Add(1)
						if v := b.session(); v.User == nil {
							t.Error("the winner is not logged in")
						}
					case http.StatusForbidden:
					default:
						t.Errorf("%d %s", a.status, a.body)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d first users", won.Load())
			}
			b := sites[1].browser(t)
			if a := b.get("/register"); a.status != http.StatusForbidden {
				t.Errorf("the form for a second: %d", a.status)
			}
			if strings.Contains(b.get("/").body, "/register") {
				t.Error("home offers registration to a second")
			}
		})
	})
	t.Run("open", func(t *testing.T) {
		s := newSite(t, redistest.Mini(t), "open")
		for _, name := range []string{"ada", "bob"} {
			b := s.browser(t)
			if a := b.post("/register", form(name, password)); a.status != http.StatusSeeOther || b.session().User.Name != name {
				t.Errorf("register %s: %d %s", name, a.status, a.body)
			}
		}
		for _, c := range []struct {
			form   url.Values
			status int
			says   string
		}{
			{form("ADA", password), 409, "exists"}, {form("eve", "short"), 400, "8 to 1024"}, {form("a b", password), 400, "letters"},
			{form("", password), 400, "Fill in"}, {nil, 400, "Fill in"},
		} {
			if a := s.browser(t).post("/register", c.form); a.status != c.status || !strings.Contains(a.body, c.says) {
				t.Errorf("%v: %d %s", c.form, a.status, a.body)
			}
		}
	})
	t.Run("closed", func(t *testing.T) {
		b := newSite(t, redistest.Mini(t), "closed").browser(t)
		if get, post := b.get("/register"), b.post("/register", form("ada", password)); get.status != 403 || post.status != 403 {
			t.Errorf("closed: %d, %d", get.status, post.status)
		}
	})
}

// A form that was sent before the login's answer had arrived carries the ID
// that the login replaced.
func TestLogoutUnderWayDuringLogin(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		b.patch(`{"set":{"chat.name":"guest"}}`)
		before := b.cookie()
		b.login("ada")
		other := s.browser(t)
		if a := other.post("/logout", nil, "Cookie", "tandem="+before); a.status != http.StatusSeeOther {
			t.Errorf("logout: %d %s", a.status, a.body)
		}
		if v := b.session(); v.User != nil {
			t.Errorf("logged in after a logout that succeeded: %+v", v)
		}
	})
}

// A session that this application cannot read may be one that others can:
// its user must be able to end it.
func TestLogoutOfWhatCannotBeDecoded(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		b.login("ada")
		key := "session:" + b.cookie()
		if err := r.Client(t).Set(t.Context(), key, "{spoilt", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		a := b.do(http.MethodGet, "/api/session", "")
		if code := problemCode(t, a); a.status != http.StatusInternalServerError || code != "session_undecodable" {
			t.Errorf("before: %d %s", a.status, code)
		}
		if a := b.post("/logout", nil); a.status != http.StatusSeeOther || b.cookie() != "" {
			t.Errorf("logout: %d %s, cookie kept: %v", a.status, a.body, b.cookie() != "")
		}
		if n, err := r.Client(t).Exists(t.Context(), key).Result(); n != 0 || err != nil {
			t.Errorf("the value is there: %d, %v", n, err)
		}
	})
}

// Who removes an account does that first and ends its sessions then. A login
// whose password was read before leaves none behind.
func TestRemovedAccountHasNoSession(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		for range 25 {
			u := s.add(t, "ada")
			if err := r.Client(t).Del(t.Context(), "tandem:throttle:{address:127.0.0.1}", "tandem:throttle:{account:ada}").Err(); err != nil {
				t.Fatal(err)
			}
			var logins sync.WaitGroup
			for range 4 {
				b := s.browser(t)
				logins.Go(func() {
					a := b.post("/login", url.Values{"username": {"ada"}, "password": {password}})
					if a.status != http.StatusSeeOther && a.status != http.StatusUnauthorized {
						t.Errorf("login: %d %s", a.status, a.body)
					}
				})
			}
			if _, err := s.accounts.Remove(t.Context(), "ada"); err != nil {
				t.Error(err)
			}
			if _, err := s.factory.EndUser(t.Context(), u.ID, sessionstore.ReasonRevoked, ""); err != nil {
				t.Error(err)
			}
			logins.Wait()
			if list, err := s.factory.List(t.Context(), u.ID); len(list) > 0 || err != nil {
				t.Fatalf("%d sessions of nobody, %v", len(list), err)
			}
		}
	})
}
