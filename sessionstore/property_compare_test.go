package sessionstore_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// Where the stores are held against the model.

// shows compares a loaded session with the model.
func (m *machine) shows(t *rapid.T, c *copied, got *sessionstore.Session) {
	s := c.of
	if s.handle == "" { // adopted just now
		s.handle = got.Handle()
	}
	if got.Handle() != s.handle || !sessionstore.ValidHandle(s.handle) {
		t.Fatalf("the handle is %q, was %q", got.Handle(), s.handle)
	}
	if got.UserID() != s.user {
		t.Fatalf("the user is %q, should be %q", got.UserID(), s.user)
	}
	if got.ID() != s.id() && (got.ID() != "" || !c.bound || !m.cfg.HashIDs) {
		t.Fatal("loaded under another ID than the session's own")
	}
	values := map[any]any{}
	for _, name := range got.Names() {
		values[name], _ = got.Get(name)
	}
	same(t, "a loaded session", values, s.attrs)
}

// compare holds Redis and the lists against the model.
func (m *machine) compare(t *rapid.T) {
	for n, s := range m.sessions {
		m.settle(t, s)
		for _, i := range s.ids {
			if i.id == s.id() && !s.over || s.zombies[i.id] || s.lapsed {
				continue
			}
			if m.exists(i.id) {
				t.Fatalf("session %d: there is a value under an ID that has ended", n)
			}
		}
		if s.over {
			continue
		}
		held, err := m.rdb.Get(m.ctx, m.valueKey(s.id())).Bytes()
		must(m.t, err)
		gs := sessions.NewSession(nil, "")
		must(m.t, m.ours.Deserialize(held, gs))
		same(t, fmt.Sprintf("session %d in Redis", n), gs.Values, s.attrs)
	}
	for _, user := range []string{"7", "8"} {
		m.compareList(t, user)
	}
}

func (m *machine) compareList(t *rapid.T, user string) {
	m.lists++
	infos, err := m.replicas[m.lists%len(m.replicas)].List(m.ctx, user)
	must(m.t, err)
	listed := map[string]sessionstore.Info{}
	for _, i := range infos {
		listed[i.Handle] = i
	}
	for n, s := range m.sessions {
		i, ok := listed[s.handle]
		delete(listed, s.handle)
		belongs := !s.over && s.user == user
		switch {
		case s.handle == "" || s.hidden && belongs:
		case ok != belongs:
			t.Fatalf("session %d of %q is listed for %q: %t", n, s.user, user, ok)
		case ok && i.ExpiresAt.Sub(s.created.Add(m.absolute)).Abs() > time.Minute:
			t.Fatalf("session %d is listed to end %s, should be %s", n, i.ExpiresAt, s.created.Add(m.absolute))
		}
	}
	if len(listed) > 0 {
		t.Fatalf("listed, but nobody's: %v", slices.Collect(maps.Keys(listed)))
	}
}

// finish holds the sockets against the model.
func (m *machine) finish(t *rapid.T) {
	for n, b := range m.bindings {
		m.settle(t, b.of)
		rights := append([]sessionstore.Reason{}, b.of.reasons...)
		if b.of.lapsed {
			rights = append(rights, sessionstore.ReasonExpired, sessionstore.ReasonGone)
		}
		if b.of.over {
			select {
			case got := <-b.told.ended:
				if !slices.Contains(rights, got) {
					t.Fatalf("socket %d: told %s, right is %v", n, got, rights)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("socket %d outlives its session, which ended: %v", n, rights)
			}
			continue
		}
		shown := map[any]any{}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			clear(shown)
			snapshot := b.b.Snapshot()
			for _, name := range snapshot.Names() {
				raw, _ := snapshot.JSON(name)
				shown[name] = strings.Trim(string(raw), `"`)
			}
			if len(shown) == len(b.of.attrs) && matches(shown, b.of.attrs) || time.Now().After(deadline) {
				break
			}
		}
		same(t, fmt.Sprintf("socket %d", n), shown, b.of.attrs)
		select {
		case reason := <-b.told.ended:
			t.Fatalf("socket %d is told %s, but its session lives", n, reason)
		default:
		}
	}
}

func matches(got map[any]any, want map[string]string) bool {
	for k, v := range want {
		if got[k] != v {
			return false
		}
	}
	return true
}
