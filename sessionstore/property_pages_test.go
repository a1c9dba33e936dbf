package sessionstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Requests to pages, through the gorilla store.

// visit is a request to a page.
type visit struct {
	r         *http.Request
	gs        *sessions.Session
	store     *sessionstore.Store
	absent    *modelled // what its cookie named, when that was not to be had
	presented int       // number of the ID in its cookie
	late      bool      // an ID that was replaced: no new session takes its place right away
}

// visitPage begins a request to a page of ours.
func (m *machine) visitPage(t *rapid.T) {
	s, at, ok := m.session(t)
	if !ok {
		return
	}
	v := &visit{store: m.replica(t).store, r: httptest.NewRequestWithContext(m.ctx, http.MethodGet, "/", nil), presented: at}
	v.r.AddCookie(&http.Cookie{Name: "tandem", Value: s.ids[at].id})
	gs, err := v.store.Get(v.r, "tandem")
	must(m.t, err)
	v.gs = gs
	c := &copied{page: v, base: map[string]string{}, changes: map[string]*string{}}
	a := m.answerOf(s, at, false, time.Now())
	if gs.IsNew {
		if a.ok {
			t.Fatal("a page does not find its session")
		}
		delete(s.zombies, s.ids[at].id)
		v.absent, v.late = s, slices.Equal(a.reasons, []sessionstore.Reason{sessionstore.ReasonRotated})
	} else if m.presented(t, s, at, nil) {
		c.fresh(s)
		typed, _ := sessionstore.Of(gs)
		m.shows(t, c, typed)
		same(t, "a page", gs.Values, s.attrs)
	}
	m.copies = append(m.copies, c)
}

// savePage ends a request, or saves in the middle of it; with another ID if
// the handler wants it.
func (m *machine) savePage(t *rapid.T, c *copied, renew bool) {
	v, w := c.page, httptest.NewRecorder()
	if c.of == nil {
		m.savesNew(t, c, w)
		return
	}
	s := c.of
	m.settle(t, s)
	now := time.Now()
	a := m.answerOf(s, c.at, false, now)
	if renew {
		v.gs.ID = ""
	} else if len(c.changes) == 0 {
		a = answer{ok: true}
	}
	changed := len(c.changes) > 0
	err := v.store.Save(v.r, w, v.gs)
	a.check(t, "save of a page", err)
	if err != nil {
		m.copies = slices.DeleteFunc(m.copies, func(o *copied) bool { return o == c }) // gorilla's ID may be empty
		return
	}
	if renew {
		s.rotated(v.gs.ID, false, now)
	}
	if renew || changed {
		// The handler goes on with the values it has, not with the merged ones.
		c.of.apply(c.changes)
		typed, _ := sessionstore.Of(v.gs)
		base := map[string]string{}
		for k, val := range v.gs.Values {
			if name := fmt.Sprint(k); !strings.HasPrefix(name, "tandem.") {
				base[name] = fmt.Sprint(val)
			}
		}
		c.at, c.base, c.changes = s.last(), base, map[string]*string{}
		m.shows(t, &copied{of: s}, typed)
	}
	if got := answered(w); got != nil && got.Value != s.ids[c.at].id {
		t.Fatal("the cookie is not the session's ID")
	} else if got == nil && (renew || changed && v.gs.ID != s.ids[v.presented].id && c.at != v.presented) {
		t.Fatal("the client is not told its new ID")
	}
}

// savesNew is savePage where the client has no session.
func (m *machine) savesNew(t *rapid.T, c *copied, w *httptest.ResponseRecorder) {
	v := c.page
	late := v.late && time.Since(v.absent.ids[v.presented].replaced) < 30*time.Second
	a := answer{ok: true}
	if late && len(v.gs.Values) > 0 {
		a = answer{reasons: []sessionstore.Reason{sessionstore.ReasonRotated}}
	}
	err := v.store.Save(v.r, w, v.gs)
	a.check(t, "save of a new session", err)
	m.copies = slices.DeleteFunc(m.copies, func(o *copied) bool { return o == c })
	if got := answered(w); err != nil || len(v.gs.Values) == 0 {
		if got != nil {
			t.Fatal("a cookie for nothing")
		}
		return
	} else if got == nil || got.Value != v.gs.ID {
		t.Fatal("the client is not told its ID")
	}
	typed, _ := sessionstore.Of(v.gs)
	m.adopt(t, c, typed)
	v.presented = 0
}

// leavePage logs out on a page.
func (m *machine) leavePage(t *rapid.T) {
	i := slices.IndexFunc(m.copies, func(c *copied) bool { return c.page != nil && c.of != nil })
	if i < 0 {
		return
	}
	c := m.copies[i]
	m.settle(t, c.of)
	m.copies = slices.Delete(m.copies, i, i+1)
	w := httptest.NewRecorder()
	c.page.gs.Options.MaxAge = -1
	reachable := m.answerOf(c.of, c.at, true, time.Now()).ok || c.of.over
	must(m.t, c.page.store.Save(c.page.r, w, c.page.gs))
	if got := answered(w); got == nil || got.MaxAge >= 0 {
		t.Fatal("the cookie is not cleared")
	}
	if reachable {
		c.of.ended(sessionstore.ReasonLogout)
	}
}
