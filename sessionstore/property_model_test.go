package sessionstore_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// This file is what a session must be, written from the requirements: it
// knows nothing of keys, scripts or compare-and-set. property_machine_test.go
// does the same things to the model and to the real stores, and compares.

// modelled is one session as it should be.
type modelled struct {
	ids     []modelledID // oldest first; the last is the session's own
	handle  string       // empty: an application's, not adopted yet
	user    string
	attrs   map[string]string // the user's too, without the reserved ones
	active  time.Time         // latest activity
	created time.Time         // or the latest login
	foreign bool              // an application has set a TTL of its own
	hidden  bool              // its place in the index was lost, or not made yet

	over    bool
	overAt  time.Time
	lapsed  bool                  // its time ran out; somebody may have ended it all the same, later
	faded   bool                  // the mark of its end may have run out
	reasons []sessionstore.Reason // that the end may have
	zombies map[string]bool       // IDs under which an application wrote after their end
}

// modelledID is an ID that the session has or had.
type modelledID struct {
	id       string
	replaced time.Time // zero: it has it
	login    bool      // it was replaced by a login
}

func (s *modelled) last() int  { return len(s.ids) - 1 }
func (s *modelled) id() string { return s.ids[s.last()].id }

// rotated notes a new ID.
func (s *modelled) rotated(id string, login bool, now time.Time) {
	old := &s.ids[s.last()]
	old.replaced, old.login = now, login
	s.ids = append(s.ids, modelledID{id: id})
	s.active, s.foreign, s.hidden = now, false, false
}

// unmarked reports whether there may be no mark of the end: who ends the
// session then, which is not there, leaves one all the same.
func (s *modelled) unmarked() bool { return s.lapsed || s.faded }

// ended notes the end. The first reason counts; of a session whose end had no
// mark before, both are true.
func (s *modelled) ended(reason sessionstore.Reason) {
	if len(s.reasons) == 0 || s.unmarked() {
		s.reasons = append(s.reasons, reason)
	}
	if !s.over {
		s.overAt = time.Now()
	}
	s.over = true
}

func (s *modelled) expired() { s.over, s.lapsed, s.overAt = true, true, time.Now() }

// apply makes a writer's changes: nil is a deletion.
func (s *modelled) apply(changes map[string]*string) {
	for name, v := range changes {
		if v == nil {
			delete(s.attrs, name)
		} else {
			s.attrs[name] = *v
		}
	}
}

// answer is what a call must answer: nothing wrong, or one of these.
type answer struct {
	ok      bool
	absent  bool                  // ErrNotFound is right
	reasons []sessionstore.Reason // so is ErrEnded for one of these
}

func (a answer) check(t *rapid.T, what string, err error) {
	t.Helper()
	var ended *sessionstore.EndedError
	switch {
	case err == nil && a.ok:
	case errors.Is(err, sessionstore.ErrNotFound) && a.absent:
	case errors.As(err, &ended) && errors.Is(err, sessionstore.ErrEnded) && slices.Contains(a.reasons, ended.Reason):
	default:
		t.Fatalf("%s: answered %v, right is %+v", what, err, a)
	}
}

// answerOf is what somebody hears who asks for s by its ID number at: by a
// cookie, or bound to the session before.
func (r rules) answerOf(s *modelled, at int, bound bool, now time.Time) answer {
	var a answer
	for _, old := range s.ids[at:s.last()] {
		age := now.Sub(old.replaced)
		if age >= r.absolute { // its tombstone may be gone, and what is written there blindly then has expired
			a.absent, a.reasons = true, append(a.reasons, sessionstore.ReasonExpired)
		}
		if !bound && (old.login || age >= r.grace) {
			a.reasons = append(a.reasons, sessionstore.ReasonRotated)
			return a
		}
	}
	if !s.over {
		a.ok = !a.absent
		return a
	}
	a.reasons = append(a.reasons, s.reasons...)
	if now.Sub(s.overAt) >= r.absolute {
		// The mark of its end has run out, and its own time with it: a value that is written blindly now has expired.
		a.absent, a.reasons = true, append(a.reasons, sessionstore.ReasonExpired)
	}
	if s.lapsed {
		a.absent, a.reasons = true, append(a.reasons, sessionstore.ReasonExpired)
	}
	return a
}

// rules are the lifetimes.
type rules struct{ idle, absolute, touch, grace time.Duration }

// timedOut says whether time has ended s; exists is what Redis says, which
// decides between one touch and the next.
func (r rules) timedOut(t *rapid.T, s *modelled, exists bool, now time.Time) bool {
	idle := now.Sub(s.active)
	switch {
	case s.handle != "" && !now.Before(s.created.Add(r.absolute)):
		return true
	case s.foreign || idle < r.idle-r.touch:
		if !exists {
			t.Fatalf("a session is gone %s after it was used", idle)
		}
		return false
	case idle >= r.idle:
		if exists {
			t.Fatalf("a session outlives its idle timeout: used %s ago", idle)
		}
		return true
	default:
		return !exists
	}
}

// copied is a working copy of a session, as its holder sees it.
type copied struct {
	of      *modelled // nil: a page's new session
	at      int       // number of the ID by which it was loaded
	bound   bool
	base    map[string]string
	changes map[string]*string

	session *sessionstore.Session
	page    *visit // not nil: a gorilla session, else a typed one
}

func (c *copied) set(name, v string) {
	if old, ok := c.base[name]; ok && old == v {
		delete(c.changes, name)
	} else {
		c.changes[name] = &v
	}
}

func (c *copied) unset(name string) {
	if _, ok := c.base[name]; ok {
		c.changes[name] = nil
	} else {
		delete(c.changes, name)
	}
}

// saved notes that the copy's changes are in the session, and that it shows
// all of that.
func (c *copied) saved() {
	c.of.apply(c.changes)
	c.fresh(c.of)
}

func (c *copied) fresh(s *modelled) {
	c.of, c.at, c.base, c.changes = s, s.last(), maps.Clone(s.attrs), map[string]*string{}
}

// same fails unless got, by any serializer, is what the model has.
func same(t *rapid.T, what string, got map[any]any, want map[string]string) {
	t.Helper()
	shown := map[string]string{}
	for k, v := range got {
		if name := fmt.Sprint(k); len(name) < 7 || name[:7] != "tandem." {
			shown[name] = fmt.Sprint(v)
		}
	}
	if !maps.Equal(shown, want) {
		t.Fatalf("%s: has %v, should have %v", what, shown, want)
	}
}
