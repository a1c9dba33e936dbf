package sessionstore_test

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// What pages, sockets and the server do to sessions.

// create stores a new session.
func (m *machine) create(t *rapid.T) {
	s := m.replica(t).New()
	c := &copied{session: s, base: map[string]string{}, changes: map[string]*string{}}
	m.change(t, c)
	must(m.t, s.Save(m.ctx))
	m.adopt(t, c, s)
}

// adopt makes what was just created a session of the model, and c its copy.
func (m *machine) adopt(t *rapid.T, c *copied, s *sessionstore.Session) *modelled {
	now := time.Now()
	n := &modelled{
		ids: []modelledID{{id: s.ID()}}, handle: s.Handle(), attrs: map[string]string{},
		active: now, created: now, zombies: map[string]bool{},
	}
	n.apply(c.changes)
	n.user = n.attrs[sessionUser]
	for _, other := range m.sessions {
		if other.handle == n.handle || slices.ContainsFunc(other.ids, func(i modelledID) bool { return i.id == n.id() }) {
			t.Fatal("a new session has the handle or ID of another")
		}
	}
	m.sessions = append(m.sessions, n)
	c.fresh(n)
	if c.page == nil {
		c.session = s
	}
	m.copies = append(m.copies, c)
	return n
}

// load presents an ID to the factory.
func (m *machine) load(t *rapid.T) {
	if s, at, ok := m.session(t); ok {
		got, err := m.replica(t).Load(m.ctx, s.ids[at].id)
		if m.presented(t, s, at, err) {
			c := &copied{session: got}
			c.fresh(s)
			m.copies = append(m.copies, c)
			m.shows(t, c, got)
			if got.Renewed() != (at != s.last()) {
				t.Fatalf("loaded by ID %d of %d, Renewed is %t", at, s.last(), got.Renewed())
			}
		}
	}
}

// presented checks the answer to who presents an ID, and notes the activity.
func (m *machine) presented(t *rapid.T, s *modelled, at int, err error) bool {
	now := time.Now()
	a := m.answerOf(s, at, false, now)
	a.check(t, fmt.Sprintf("ID %d of %d", at, s.last()), err)
	delete(s.zombies, s.ids[at].id) // who looks at one buries it
	if err != nil {
		return false
	}
	if now.Sub(s.active) >= m.touch {
		s.hidden = false // it was touched, and that heals
	}
	if s.handle == "" {
		s.hidden, s.created = false, now
	}
	s.active, s.foreign = now, false
	return true
}

// loadHandle takes a copy as the server's own code does.
func (m *machine) loadHandle(t *rapid.T) {
	s, _, ok := m.session(t)
	if !ok || s.handle == "" {
		return
	}
	got, err := m.replica(t).LoadHandle(m.ctx, s.handle)
	a := m.answerOf(s, s.last(), true, time.Now())
	a.absent = a.absent || s.hidden || s.over // whose record may be gone
	a.check(t, "by handle", err)
	if err == nil {
		c := &copied{session: got, bound: true}
		c.fresh(s)
		m.copies = append(m.copies, c)
		m.shows(t, c, got)
	}
}

// modify changes a copy that somebody holds.
func (m *machine) modify(t *rapid.T) {
	if c, ok := pick(t, m.copies, "copy"); ok {
		m.change(t, c)
	}
}

func (m *machine) change(t *rapid.T, c *copied) {
	for range rapid.IntRange(1, 2).Draw(t, "changes") {
		name := rapid.SampledFrom([]string{"a", "b", "c", "chat.name"}).Draw(t, "attribute")
		v := strconv.Itoa(rapid.IntRange(-1, 4).Draw(t, "value"))
		switch {
		case v == "-1" && c.page != nil:
			c.unset(name)
			delete(c.page.gs.Values, name)
		case v == "-1":
			c.unset(name)
			must(m.t, c.session.Delete(name))
		case c.page != nil:
			c.set(name, v)
			c.page.gs.Values[name] = v
		default:
			c.set(name, v)
			must(m.t, c.session.Set(name, v))
		}
	}
}

// save saves a copy, which may be old by now.
func (m *machine) save(t *rapid.T) {
	c, ok := pick(t, m.copies, "copy")
	switch {
	case !ok:
	case c.page != nil:
		m.savePage(t, c, false)
	case len(c.changes) == 0:
		answer{ok: true}.check(t, "saving nothing", c.session.Save(m.ctx))
	default:
		m.settle(t, c.of)
		if c.of.faded {
			return // held for longer than the mark of the end lasts: a blind write may have made a session of it
		}
		a := m.answerOf(c.of, c.at, c.bound, time.Now())
		err := c.session.Save(m.ctx)
		if a.check(t, "save", err); err == nil {
			c.saved()
			m.shows(t, c, c.session)
		}
	}
}

// update increments a counter by an ID.
func (m *machine) update(t *rapid.T) {
	s, at, ok := m.session(t)
	if !ok {
		return
	}
	got, err := m.replica(t).Update(m.ctx, s.ids[at].id, count)
	if m.presented(t, s, at, err) {
		s.count()
		m.shows(t, &copied{of: s}, got)
	}
}

func count(s *sessionstore.Session) error {
	n := 0
	if v, ok := s.Get("n"); ok {
		n, _ = strconv.Atoi(fmt.Sprint(v))
	}
	return s.Set("n", strconv.Itoa(n+1))
}

func (s *modelled) count() {
	n, _ := strconv.Atoi(s.attrs["n"])
	s.attrs["n"] = strconv.Itoa(n + 1)
}

// rotate replaces the ID of a copy's session.
func (m *machine) rotate(t *rapid.T) {
	c, ok := pick(t, m.copies, "copy")
	switch {
	case !ok:
		return
	case c.page != nil:
		m.savePage(t, c, true)
		return
	case c.session.ID() == "":
		return // the client could not follow
	}
	s := c.of
	m.settle(t, s)
	now := time.Now()
	if s.faded {
		return // as with save
	}
	a := m.answerOf(s, c.at, c.bound, now)
	if s.over { // where it went is known on the way, and so may be how it ended
		a.reasons = append(a.reasons, s.reasons...)
	}
	err := c.session.Rotate(m.ctx, nil)
	if a.check(t, "rotate", err); err == nil {
		s.rotated(c.session.ID(), false, now)
		c.saved()
		m.shows(t, c, c.session)
	}
}

// login logs a user in with what a request holds, or with nothing.
func (m *machine) login(t *rapid.T) {
	i := rapid.IntRange(-1, len(m.copies)-1).Draw(t, "copy")
	login := sessionstore.Login{UserID: rapid.SampledFrom([]string{"7", "8"}).Draw(t, "user"), UserName: "Ann"}
	c := &copied{}
	if i >= 0 {
		if c = m.copies[i]; c.page != nil {
			return
		}
		m.copies = slices.Delete(m.copies, i, i+1) // not to be used again
	}
	now := time.Now()
	s := c.of
	keeps := false
	if s != nil {
		m.settle(t, s)
		was := c.base[sessionUser]
		keeps = m.answerOf(s, c.at, true, now).ok && (was == "" || was == login.UserID) && (s.user == "" || s.user == login.UserID)
		if was != "" && was != login.UserID && (s.unmarked() || m.answerOf(s, c.at, true, now).ok) {
			s.ended(sessionstore.ReasonLogout)
		}
	}
	got, err := m.replica(t).Login(m.ctx, c.session, login)
	must(m.t, err)
	if !keeps {
		n := m.adopt(t, &copied{changes: map[string]*string{sessionUser: &login.UserID, sessionName: &login.UserName}}, got)
		m.shows(t, &copied{of: n}, got)
		return
	}
	s.rotated(got.ID(), true, now)
	s.created, s.user = now, login.UserID
	c.changes[sessionUser], c.changes[sessionName] = &login.UserID, &login.UserName
	c.session = got
	c.saved()
	m.shows(t, c, got)
	m.copies = append(m.copies, c)
}

// active touches a session as a socket does.
func (m *machine) active(t *rapid.T) {
	c, ok := pick(t, m.copies, "copy")
	if !ok || c.page != nil {
		return
	}
	s := c.of
	m.settle(t, s)
	must(m.t, m.replica(t).Touch(m.ctx, c.session.Snapshot()))
	if now := time.Now(); !s.over && c.at == s.last() {
		if now.Sub(s.active) >= m.touch {
			s.hidden = false
		}
		s.active, s.foreign = now, false
	}
}

// bind binds a socket.
func (m *machine) bind(t *rapid.T) {
	s, at, ok := m.session(t)
	if !ok {
		return
	}
	l := told{make(chan sessionstore.Reason, 1)}
	b, snapshot, err := m.replica(t).watcher.Bind(m.ctx, s.ids[at].id, l)
	if m.presented(t, s, at, err) {
		if s.handle == "" {
			s.handle = snapshot.Handle()
		}
		m.bindings = append(m.bindings, &bound{s, b, l})
	}
}

// socketWrites writes through a binding, which follows the session anywhere.
func (m *machine) socketWrites(t *rapid.T) {
	b, ok := pick(t, m.bindings, "binding")
	if !ok {
		return
	}
	m.settle(t, b.of)
	a := m.answerOf(b.of, b.of.last(), true, time.Now())
	if b.of.over { // it may have been told already
		a.reasons = append(a.reasons, sessionstore.ReasonGone, sessionstore.ReasonExpired)
	}
	_, err := b.b.Update(m.ctx, count)
	if a.check(t, "a socket's update", err); err == nil {
		b.of.count()
	}
}
