package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// attributesEach is over how many attributes each writer spreads its changes.
const attributesEach = 10

// writer is one of those who change a session at the same time, each its own attributes.
type writer struct {
	name string
	// write sets one attribute and returns all readable ones as the server then answers.
	write func(i int, set map[string]any) (map[string]any, error)

	last map[string]any // what was acknowledged; owned by run, then by the test
}

// run makes the changes one by one. Each answer must show all that was acknowledged before it.
func (w *writer) run(changes int) error {
	w.last = map[string]any{}
	for i := range changes {
		name := fmt.Sprintf("chat.%s.%d", w.name, i%attributesEach)
		values, err := w.write(i, map[string]any{name: i})
		if err != nil {
			return fmt.Errorf("%s, change %d: %w", w.name, i, err)
		}
		w.last[name] = float64(i)
		for name, want := range w.last {
			if values[name] != want {
				return fmt.Errorf("%s: after change %d %s is %v, want %v", w.name, i, name, values[name], want)
			}
		}
	}
	return nil
}

func pageWriter(name, base string, p *person) *writer {
	return &writer{name: name, write: func(_ int, set map[string]any) (map[string]any, error) {
		var s session
		a, err := p.tryJSON(http.MethodPatch, base+"/api/session", map[string]any{"set": set}, &s)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return s.Values, err
	}}
}

func socketWriter(name string, s *socket) *writer {
	return &writer{name: name, write: func(i int, set map[string]any) (map[string]any, error) {
		f, err := s.try(fmt.Sprint(i), map[string]any{"type": "session_set", "set": set}, nil)
		if err == nil && f.kind() != "session" {
			err = fmt.Errorf("reply: %s", f.raw)
		}
		values, _ := f.fields["values"].(map[string]any)
		return values, err
	}}
}

// Pages and sockets of two replicas change different attributes of one session at the same time, while an unmodified
// application reads it: nothing is lost, not even for a moment.
func TestNoWriteIsLost(t *testing.T) {
	s := startSite(t, "limits: {frames_per_second: 0}\n")
	ada := visitor(t, s.app, "ada")
	before := ada.session(s.a.url)
	fixed := ada.frozen(s.a.url)
	writers := []*writer{
		pageWriter("page-a", s.a.url, fixed), pageWriter("page-b", s.b.url, fixed),
		socketWriter("socket-a", ada.authenticated(s.a.url, "writes")),
		socketWriter("socket-b", ada.authenticated(s.b.url, "writes")),
	}

	var writing sync.WaitGroup
	var done atomic.Bool
	var reads int
	work := []func() error{func() error {
		newest := map[string]float64{}
		for ; !done.Load() || reads < sizes.changes; reads++ {
			if err := readForward(fixed, s.app, newest); err != nil {
				return fmt.Errorf("the application, read %d: %w", reads, err)
			}
		}
		return nil
	}}
	for _, w := range writers {
		writing.Add(1)
		work = append(work, func() error {
			defer writing.Done()
			return w.run(sizes.changes)
		})
	}
	work = append(work, func() error {
		writing.Wait()
		done.Store(true)
		return nil
	})
	together(t, work...)
	t.Logf("%d changes by each of %d writers, %d reads by the application", sizes.changes, len(writers), reads)

	for _, base := range []string{s.a.url, s.b.url} {
		now := ada.session(base)
		if now.Handle != before.Handle || now.User == nil || now.User.ID != "ada" {
			t.Errorf("the session is another: %+v", now)
		}
		checkAll(t, base, writers, now.Values)
	}
	checkAll(t, "the application", writers, decoded(t, ada.get(s.app+"/app/show")))
}

func checkAll(t *testing.T, who string, writers []*writer, values map[string]any) {
	t.Helper()
	lost := 0
	for _, w := range writers {
		for name, want := range w.last {
			if values[name] != want {
				lost++
				t.Errorf("%s: %s is %v, acknowledged was %v", who, name, values[name], want)
			}
		}
	}
	if lost == 0 && len(values) < len(writers)*attributesEach {
		t.Errorf("%s shows %d values only", who, len(values))
	}
}

// readForward reads the session as the application sees it. No counter of a writer may go back.
func readForward(p *person, app string, newest map[string]float64) error {
	var values map[string]any
	a, err := p.tryJSON(http.MethodGet, app+"/app/show", nil, &values)
	if err != nil || a.status != http.StatusOK {
		return fmt.Errorf("%d: %w", a.status, err)
	}
	if values["user.id"] != "ada" {
		return fmt.Errorf("it sees another session: %v", values)
	}
	for name, was := range newest {
		if now, _ := values[name].(float64); now < was {
			return fmt.Errorf("%s went from %v back to %v", name, was, values[name])
		}
	}
	for name, v := range values {
		if n, ok := v.(float64); ok && strings.HasPrefix(name, "chat.") {
			newest[name] = n
		}
	}
	return nil
}
