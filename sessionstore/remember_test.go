package sessionstore_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// answered is the session cookie that a response set, nil for none.
func answered(w *httptest.ResponseRecorder) *http.Cookie {
	for _, c := range w.Result().Cookies() {
		if c.Name == "tandem" {
			return c
		}
	}
	return nil
}

func asking(t *testing.T, id string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if id != "" {
		r.AddCookie(&http.Cookie{Name: "tandem", Value: id})
	}
	return r
}

// wantAge fails unless the cookie lives about that long; zero: as long as the
// browser.
func wantAge(t *testing.T, what string, c *http.Cookie, want time.Duration) {
	t.Helper()
	if c == nil {
		t.Fatalf("%s: no cookie", what)
	}
	age := time.Duration(c.MaxAge) * time.Second
	if age > want || age < want-10*time.Second || (want == 0) != c.Expires.IsZero() {
		t.Fatalf("%s: the cookie lives %s, until %s; want %s", what, age, c.Expires, want)
	}
}

// A remembered session's cookie lives as long as the session may, whoever
// sets it again, until the user asks for something else.
func TestRemember(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				const absolute = 24 * time.Hour
				ctx := t.Context()
				f := factory(t, rdb, sessionstore.Config{Serializer: s.ours, AbsoluteTimeout: absolute})
				st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
				must(t, err)
				give := func(s *sessionstore.Session) *http.Cookie {
					w := httptest.NewRecorder()
					st.SetCookie(w, asking(t, ""), s)
					return answered(w)
				}
				remembered := ann
				remembered.Remember = true

				session, err := f.Login(ctx, nil, ann)
				must(t, err)
				wantAge(t, "an ordinary login", give(session), 0)
				session, err = f.Login(ctx, session, remembered)
				must(t, err)
				wantAge(t, "a login to be remembered", give(session), absolute)
				must(t, session.Rotate(ctx, nil))
				wantAge(t, "after a rotation", give(session), absolute)
				wantAge(t, "elsewhere", give(loaded(t, f, session.ID())), absolute)

				// A handler that saves, and one that asks for a new ID.
				id := session.ID()
				for _, renew := range []bool{false, true} {
					r, w := asking(t, id), httptest.NewRecorder()
					gs, err := st.Get(r, "tandem")
					must(t, err)
					gs.Values["visits"] = 1
					if renew {
						gs.ID = ""
					}
					must(t, st.Save(r, w, gs))
					wantAge(t, "a handler's save", answered(w), absolute)
					id = gs.ID
				}

				// The handler's own choice counts for its cookie.
				r, w := asking(t, id), httptest.NewRecorder()
				gs, err := st.Get(r, "tandem")
				must(t, err)
				gs.Options.MaxAge = 3600
				must(t, st.Save(r, w, gs))
				wantAge(t, "a handler's age", answered(w), time.Hour)

				// The choice is taken back: by the user …
				r, w = asking(t, id), httptest.NewRecorder()
				gs, err = st.Get(r, "tandem")
				must(t, err)
				typed, _ := sessionstore.Of(gs)
				must(t, typed.Remember(false))
				if !typed.Renewed() {
					t.Fatal("the cookie is to be set again, and nothing says so")
				}
				must(t, st.Save(r, w, gs))
				wantAge(t, "forgotten", answered(w), 0)
				r, w = asking(t, id), httptest.NewRecorder()
				gs, err = st.Get(r, "tandem")
				must(t, err)
				must(t, st.Save(r, w, gs))
				if answered(w) != nil {
					t.Fatal("a cookie for nothing")
				}
				// … and by the next login.
				session, err = f.Login(ctx, loaded(t, f, id), remembered)
				must(t, err)
				session, err = f.Login(ctx, session, ann)
				must(t, err)
				wantAge(t, "an ordinary login after that", give(session), 0)
			})
		}
	})
}

// renewals counts how often a socket is told to have its cookie set again.
type renewals struct {
	told
	renewed chan bool
}

func (l renewals) SessionRotated() { l.renewed <- true }

// Sockets have the cookie set again when its age has changed.
func TestSocketsRenewTheCookiesAge(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		f := factory(t, srv.Client(t), sessionstore.Config{})
		w := watching(t, f)
		s, err := f.Login(t.Context(), nil, ann)
		must(t, err)
		l := renewals{told{make(chan sessionstore.Reason, 1)}, make(chan bool, 10)}
		b, _, err := w.Bind(t.Context(), s.ID(), l)
		must(t, err)
		defer b.Close()
		for _, on := range []bool{true, false} {
			_, err = f.Update(t.Context(), s.ID(), func(s *sessionstore.Session) error { return s.Remember(on) })
			must(t, err)
			<-l.renewed
		}
		must(t, errOf(b.Update(t.Context(), func(s *sessionstore.Session) error { return s.Set("a", 1) })))
		if len(l.renewed) > 0 {
			t.Fatal("told without need")
		}
	})
}
