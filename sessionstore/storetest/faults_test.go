package storetest_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/sessions"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/storetest"
)

// faulty is a store with a fault in it. What is nil is as it was.
type faulty struct {
	sessions.Store
	get    func(inner sessions.Store, r *http.Request, name string) (*sessions.Session, error) // around Get
	load   func(*sessions.Session, error) (*sessions.Session, error)                           // after New
	before func(w http.ResponseWriter, gs *sessions.Session) (skip bool)                       // before Save
}

func (f *faulty) Get(r *http.Request, name string) (*sessions.Session, error) {
	if f.get != nil {
		return f.get(f, r, name)
	}
	return sessions.GetRegistry(r).Get(f, name)
}

func (f *faulty) New(r *http.Request, name string) (*sessions.Session, error) {
	gs, err := f.Store.New(r, name)
	if f.load != nil {
		return f.load(gs, err)
	}
	return gs, err
}

func (f *faulty) Save(r *http.Request, w http.ResponseWriter, gs *sessions.Session) error {
	if f.before != nil && f.before(w, gs) {
		return nil
	}
	return f.Store.Save(r, w, gs)
}

// Each promise is told to be broken by a store that breaks it: by redisstore,
// or by ours with a fault put into it.
func TestFaults(t *testing.T) {
	var open atomic.Int32
	faults := map[string]faulty{
		"new-session": {before: func(http.ResponseWriter, *sessions.Session) bool { return true }},
		"one-session": {get: func(s sessions.Store, r *http.Request, name string) (*sessions.Session, error) {
			return s.New(r, name)
		}},
		"values": {load: func(gs *sessions.Session, err error) (*sessions.Session, error) {
			for name, v := range gs.Values {
				if n, ok := v.(int64); ok {
					gs.Values[name] = float64(n)
				}
			}
			return gs, err
		}},
		"flashes": {load: func(gs *sessions.Session, err error) (*sessions.Session, error) {
			if !gs.IsNew {
				gs.Values["_flash"] = []any{"again"}
			}
			return gs, err
		}},
		"parallel-requests": { // a pool that is too small
			load: func(gs *sessions.Session, err error) (*sessions.Session, error) {
				if open.Add(1) > 5 {
					err = errors.New("busy")
				}
				return gs, err
			},
			before: func(http.ResponseWriter, *sessions.Session) bool {
				open.Store(0)
				return false
			},
		},
		"id-secret": {before: func(w http.ResponseWriter, gs *sessions.Session) bool {
			w.Header().Set("X-Session", gs.ID)
			return false
		}},
		"logout": {before: func(w http.ResponseWriter, gs *sessions.Session) bool {
			if gs.Options.MaxAge < 0 {
				http.SetCookie(w, sessions.NewCookie(gs.Name(), "", gs.Options))
			}
			return gs.Options.MaxAge < 0
		}},
		"outage-error":      {load: func(gs *sessions.Session, _ error) (*sessions.Session, error) { return gs, nil }},
		"undecodable-error": {load: func(gs *sessions.Session, _ error) (*sessions.Session, error) { return gs, nil }},
	}
	s := redistest.Mini(t)
	seen := slices.Clone(brokenByRedisstore)
	for id, fault := range faults {
		t.Run(id, func(t *testing.T) {
			h := ours(t, s, sessionstore.Config{Serializer: sessionstore.Gob()}, sessionstore.StoreConfig{Cookie: "session"})
			fault.Store, h.Store = h.Store, &fault
			wantOneBroken(t, h, id)
		})
		seen = append(seen, id)
	}
	t.Run("renewal", func(t *testing.T) {
		h := stock(t, s, nil)
		h.Renew = func(w http.ResponseWriter, r *http.Request, gs *sessions.Session) error {
			gs.ID = "" // and forget the old one
			return gs.Save(r, w)
		}
		wantOneBroken(t, h, "renewal")
	})
	seen = append(seen, "renewal")
	for _, p := range storetest.Promises() {
		if !slices.Contains(seen, p.ID) {
			t.Errorf("no test breaks %s", p.ID)
		}
	}
}

func wantOneBroken(t *testing.T, h storetest.Harness, id string) {
	t.Helper()
	if r := storetest.CheckOne(t.Context(), h, id); r.Verdict != storetest.Broken {
		t.Errorf("%s: %v: %s", id, r.Verdict, r.Detail)
	} else {
		t.Log(r.Detail)
	}
}

// A store that panics, or a harness that fails, breaks what is being checked
// and nothing else.
func TestPanic(t *testing.T) {
	h := stock(t, redistest.Mini(t), nil)
	h.Corrupt = func(string) error { return errors.New("disk full") }
	h.Renew = func(http.ResponseWriter, *http.Request, *sessions.Session) error { panic("no such table") }
	for _, r := range storetest.Check(t.Context(), h) {
		switch want := map[string]string{"undecodable-error": "disk full", "renewal": "no such table"}[r.ID]; {
		case want != "" && (r.Verdict != storetest.Broken || !strings.Contains(r.Detail, want)):
			t.Errorf("%s: %v: %s", r.ID, r.Verdict, r.Detail)
		case r.ID == "values" && r.Verdict != storetest.Held:
			t.Errorf("%s: %v: %s", r.ID, r.Verdict, r.Detail)
		}
	}
}
