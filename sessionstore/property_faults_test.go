package sessionstore_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/sessions"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// What ends sessions, and what goes wrong with them: time, loss, and an
// application that writes blindly.

// end ends a session in one of many ways.
func (m *machine) end(t *rapid.T) {
	s, at, ok := m.session(t)
	if !ok || time.Since(s.ids[at].replaced) >= m.absolute && at < s.last() {
		return
	}
	r := m.replica(t)
	a := answer{ok: true, absent: s.over}
	if rapid.Bool().Draw(t, "by handle") && s.handle != "" {
		err := r.EndHandle(m.ctx, s.handle, sessionstore.ReasonRevoked)
		a.absent = a.absent || s.hidden
		if a.check(t, "revoke", err); err == nil || s.unmarked() {
			s.ended(sessionstore.ReasonRevoked)
		}
		return
	}
	a.check(t, "logout", r.End(m.ctx, s.ids[at].id, sessionstore.ReasonLogout))
	s.ended(sessionstore.ReasonLogout)
}

// endUser revokes all sessions of a user.
func (m *machine) endUser(t *rapid.T) {
	user := rapid.SampledFrom([]string{"7", "8"}).Draw(t, "user")
	var except, hidden []*modelled
	if s, _, ok := m.session(t); ok && rapid.Bool().Draw(t, "but for one") {
		except = append(except, s)
	}
	want := 0
	for _, s := range m.sessions {
		m.settle(t, s)
		switch {
		case s.over || s.user != user || slices.Contains(except, s):
		case s.hidden:
			hidden = append(hidden, s)
		default:
			want++
			s.ended(sessionstore.ReasonRevoked)
		}
	}
	exceptHandle := ""
	for _, s := range except {
		exceptHandle = s.handle
	}
	n, err := m.replica(t).EndUser(m.ctx, user, sessionstore.ReasonRevoked, exceptHandle)
	must(m.t, err)
	for _, s := range hidden {
		if !m.exists(s.id()) {
			want++
			s.ended(sessionstore.ReasonRevoked)
		}
	}
	if n != want {
		t.Fatalf("%d sessions revoked, should be %d", n, want)
	}
}

// expire does what Redis does when nobody has used a session for long.
func (m *machine) expire(t *rapid.T) {
	s, _, ok := m.session(t)
	if !ok || s.over {
		return
	}
	ref := m.ref(s.id())
	must(m.t, m.rdb.Del(m.ctx, "session:"+ref).Err())
	must(m.t, m.rdb.Del(m.ctx, "tandem:sid:{session:"+ref+"}").Err())
	s.expired()
}

// pass lets time pass.
func (m *machine) pass(t *rapid.T) {
	if m.sleep != nil {
		m.sleep(rapid.SampledFrom([]time.Duration{
			time.Second, 12 * time.Second, 40 * time.Second, 2 * time.Minute, 3*time.Minute + time.Second,
		}).Draw(t, "time"))
	}
}

// lose loses what leads to a session: its record, its place in the index.
func (m *machine) lose(t *rapid.T) {
	s, _, ok := m.session(t)
	if !ok || s.handle == "" {
		return
	}
	s.hidden = true
	what := rapid.IntRange(0, 2).Draw(t, "what")
	if what != 1 {
		must(m.t, m.rdb.Del(m.ctx, "tandem:handle:{"+s.handle+"}").Err())
	}
	if what != 0 {
		for _, key := range m.rdb.Keys(m.ctx, "tandem:user:*").Val() {
			must(m.t, m.rdb.ZRem(m.ctx, key, s.handle).Err())
		}
	}
}

// stockMakes: an application makes a session.
func (m *machine) stockMakes(t *rapid.T) {
	if m.stock == nil {
		return
	}
	user := rapid.SampledFrom([]string{"", "7"}).Draw(t, "user")
	attrs := []any{"a", "stock"}
	if user != "" {
		attrs = append(attrs, sessionUser, user)
	}
	n := &modelled{
		ids: []modelledID{{id: m.stock.made(attrs...)}}, user: user, attrs: map[string]string{"a": "stock"},
		active: time.Now(), foreign: true, hidden: true, zombies: map[string]bool{},
	}
	if user != "" {
		n.attrs[sessionUser] = user
	}
	m.sessions = append(m.sessions, n)
}

// stockLoads: an application begins a request.
func (m *machine) stockLoads(t *rapid.T) {
	if m.stock == nil {
		return
	}
	if s, at, ok := m.session(t); ok && m.exists(s.ids[at].id) {
		id := s.ids[at].id
		gs := m.stock.load(id)
		if at == s.last() && !s.over {
			same(t, "the application's session", gs.Values, s.attrs)
		}
		m.drafts = append(m.drafts, &draft{s, id, gs})
	}
}

// stockSaves: an application ends a request, and writes all it has over
// whatever is there by now.
func (m *machine) stockSaves(t *rapid.T) {
	d, ok := pick(t, m.drafts, "draft")
	if !ok {
		return
	}
	s := d.of
	m.settle(t, s)
	if s.lapsed || s.over && time.Since(s.overAt) >= m.absolute {
		return // without the mark of an end this makes a session, for redisstore and for us
	}
	d.gs.Values["a"] = strconv.Itoa(rapid.IntRange(0, 4).Draw(t, "value"))
	m.stock.save(d.gs)
	if s.over || d.id != s.id() {
		s.zombies[d.id] = true
		return
	}
	s.foreign = true
	s.attrs = map[string]string{}
	for k, v := range d.gs.Values {
		if name := k.(string); !strings.HasPrefix(name, "tandem.") {
			s.attrs[name] = fmt.Sprint(v)
		}
	}
}

// draft is what an application with redisstore holds between its load and
// its blind save.
type draft struct {
	of *modelled
	id string
	gs *sessions.Session
}
