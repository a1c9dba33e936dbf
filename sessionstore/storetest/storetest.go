// Package storetest tells which promises a gorilla session store keeps.
//
// It knows nothing of a store but [sessions.Store]: it serves real pages over
// HTTPS that use the store, visits them with browsers that keep cookies, and
// looks at what becomes of their sessions when requests overlap, the backend
// goes away, or somebody makes a cookie up. Races are not tried many times:
// each request stops where the check needs it to.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Harness{Store: mystore.New(db), Replica: mystore.New(db)})
//	}
//
// [Check] reports instead of failing, for stores that are known to break some.
// The hooks of a [Harness] are optional; without one the promises that need it
// are not checked.
package storetest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/sessions"
)

// Harness is a store to be checked, and what can be done to its backend.
// Functions are called from one goroutine, but for Renew.
type Harness struct {
	// Store is what is checked, with the options that it was given. It is
	// used concurrently. Required.
	Store sessions.Store

	// Replica is a store over the same backend, as another process has it.
	// Nil: promises over two replicas are not applicable.
	Replica sessions.Store

	// Cookie is the name of the session cookie. Empty: "session".
	Cookie string

	// Renew does what the application does when a user logs in: it gives the
	// request's session a new ID, keeps its values, saves it and sets the
	// cookie. It runs in the handler, on either replica. Nil: the store
	// offers no way.
	Renew func(w http.ResponseWriter, r *http.Request, s *sessions.Session) error

	// Raw returns the bytes that the backend keeps under a session ID, nil
	// when there are none. The ID is what the store wrote into [sessions.Session].ID.
	Raw func(id string) ([]byte, error)

	// Corrupt puts bytes under an ID that the store cannot decode, in place
	// of those that are there, if any.
	Corrupt func(id string) error

	// SetAvailable puts the backend out of the store's reach, and back; it
	// returns when that is so. Raw and Corrupt are not called in between.
	SetAvailable func(available bool) error
}

// Promise is one thing that applications rely on.
type Promise struct {
	ID   string // stable, for tables and subtests: "late-save"
	Name string // the promise as a sentence
	Why  string // what becomes of an application whose store breaks it
}

// Promises returns all promises, in the order in which they are checked.
func Promises() []Promise {
	list := make([]Promise, len(catalogue))
	for i, c := range catalogue {
		list[i] = c.Promise
	}
	return list
}

// Verdict says what became of a promise.
type Verdict int

// The verdicts.
const (
	Held          Verdict = iota
	Broken                // Result.Detail says how
	NotApplicable         // Result.Detail says what the harness lacks
)

func (v Verdict) String() string {
	switch v {
	case Held:
		return "held"
	case Broken:
		return "broken"
	case NotApplicable:
		return "not applicable"
	}
	return fmt.Sprintf("Verdict(%d)", int(v))
}

// Result is what one check found.
type Result struct {
	Promise
	Verdict Verdict
	Detail  string // empty when the promise was held
}

// Report is the results in the order of [Promises].
type Report []Result

// Broken returns the IDs of the broken promises.
func (r Report) Broken() []string {
	var ids []string
	for _, result := range r {
		if result.Verdict == Broken {
			ids = append(ids, result.ID)
		}
	}
	return ids
}

// String is the report as text, a line for each promise.
func (r Report) String() string {
	var b strings.Builder
	for _, result := range r {
		fmt.Fprintf(&b, "%-14s  %s", result.Verdict, result.Name)
		if result.Detail != "" {
			fmt.Fprintf(&b, ": %s", result.Detail)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// patience is how long one check may take before what it waits for counts as
// broken.
const patience = 30 * time.Second

// Check puts the harness through every promise, one after the other. It
// panics when the harness has no store.
func Check(ctx context.Context, h Harness) Report {
	s := newSite(h)
	defer s.close()
	report := make(Report, len(catalogue))
	for i, c := range catalogue {
		report[i] = s.check(ctx, c)
	}
	return report
}

// Run is [Check] as a subtest for each promise, which fails when it is broken
// and is skipped when it is not applicable.
func Run(t *testing.T, h Harness) {
	t.Helper()
	s := newSite(h)
	defer s.close()
	for _, c := range catalogue {
		t.Run(c.ID, func(t *testing.T) {
			switch r := s.check(t.Context(), c); r.Verdict {
			case Broken:
				t.Errorf("broken: %s: %s\n%s", r.Name, r.Detail, r.Why)
			case NotApplicable:
				t.Skip(r.Detail)
			}
		})
	}
}
