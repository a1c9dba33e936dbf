package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session returns the state of a session of user 7 with these attributes.
func session(t testing.TB, attributes map[string]any) *sessionstore.Snapshot {
	t.Helper()
	f, err := sessionstore.New(redistest.Mini(t).Client(t), sessionstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := f.New()
	for name, value := range attributes {
		if err := s.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Set("user.id", "7"); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.Snapshot()
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"neither":          {},
		"both":             {Attribute: "a", URL: "http://a/b"},
		"write alone":      {URL: "http://a/b", WriteAttribute: "a"},
		"no URL":           {URL: "a/b"},
		"negative cache":   {URL: "http://a/b", Cache: -1},
		"negative waiting": {URL: "http://a/b", Timeout: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAttribute(t *testing.T) {
	s := session(t, map[string]any{
		"documents": []string{"team-7:*", "note", "*.draft", "a*b*c"}, "one": "exact", "all": "*",
		"number": 7, "mixed": []any{"exact", 7}, "nulls": []any{nil}, "null": nil, "none": []string{}, "object": map[string]string{"a": "b"},
	})
	for _, test := range []struct {
		attribute, document string
		allowed             bool
	}{
		{"documents", "team-7:", true},
		{"documents", "team-7:plan", true},
		{"documents", "team-70:plan", false},
		{"documents", "note", true},
		{"documents", "notes", false},
		{"documents", "my.draft", true},
		{"documents", "abc", true},
		{"documents", "axxbyyc", true},
		{"documents", "acb", false},
		{"documents", "ab", false},
		{"one", "exact", true},
		{"one", "exac", false},
		{"all", "anything", true},
		{"number", "7", false},
		{"mixed", "exact", false},
		{"nulls", "null", false},
		{"null", "null", false},
		{"none", "x", false},
		{"object", "a", false},
		{"missing", "x", false},
	} {
		r, err := New(Config{Attribute: test.attribute})
		if err != nil {
			t.Fatal(err)
		}
		for _, action := range []ws.Action{ws.ActionRead, ws.ActionWrite} {
			until, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: test.document, Action: action})
			if (err == nil) != test.allowed || err != nil && !errors.Is(err, ws.ErrForbidden) || !until.IsZero() {
				t.Errorf("%s of %s by %s: %v, %v", action, test.document, test.attribute, until, err)
			}
		}
	}
}

func TestWriteAttribute(t *testing.T) {
	s := session(t, map[string]any{"documents": "*", "documents.write": "mine"})
	r, err := New(Config{Attribute: "documents", WriteAttribute: "documents.write"})
	if err != nil {
		t.Fatal(err)
	}
	for document, allowed := range map[string]bool{"mine": true, "other": false} {
		if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: document, Action: ws.ActionRead}); err != nil {
			t.Errorf("reading %s: %v", document, err)
		}
		if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: document, Action: ws.ActionWrite}); (err == nil) != allowed {
			t.Errorf("writing %s: %v", document, err)
		}
	}
	if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: "mine", Action: "other"}); !errors.Is(err, ws.ErrForbidden) {
		t.Errorf("an unknown action: %v", err)
	}
}

// application is the other side of a callback.
type application struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func newApplication(t testing.TB, answer http.HandlerFunc) *application {
	t.Helper()
	a := &application{}
	a.answers(answer)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		(*a.answer.Load())(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *application) answers(answer http.HandlerFunc) { a.answer.Store(&answer) }

func (a *application) rule(t testing.TB, cache, timeout time.Duration) *Rule {
	t.Helper()
	r, err := New(Config{URL: a.URL + "/may", Cache: cache, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestCallbackAsks(t *testing.T) {
	s := session(t, nil)
	got := make(chan map[string]string, 1)
	a := newApplication(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost ||
			r.URL.Path != "/may" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		got <- body
		text(200, `{"allow":true}`)(w, r)
	})
	until, err := a.rule(t, time.Minute, 0).Authorize(t.Context(), ws.Access{Session: s, Document: "d", Action: ws.ActionRead})
	if err != nil || time.Until(until) < 50*time.Second || time.Until(until) > time.Minute {
		t.Errorf("%v, %v", until, err)
	}
	want := map[string]string{"user": "7", "session": s.Handle(), "document": "d", "action": "read"}
	if body := <-got; fmt.Sprint(body) != fmt.Sprint(want) {
		t.Errorf("asked %v", body)
	}
}

func TestCallbackAnswers(t *testing.T) {
	s := session(t, nil)
	elsewhere := newApplication(t, text(200, `{"allow":true}`))
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"yes":       {text(200, `{"allow":true,"more":1}`), nil},
		"created":   {text(201, `{"allow":true}`), nil},
		"no":        {text(200, `{"allow":false}`), ws.ErrForbidden},
		"403":       {text(403, `<html>`), ws.ErrForbidden},
		"long 403":  {text(403, strings.Repeat("x", 1<<20)), ws.ErrForbidden},
		"empty":     {text(200, ``), ws.ErrUnavailable},
		"204":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ws.ErrUnavailable},
		"no answer": {text(200, `{}`), ws.ErrUnavailable},
		"null":      {text(200, `{"allow":null}`), ws.ErrUnavailable},
		"text":      {text(200, `{"allow":"true"}`), ws.ErrUnavailable},
		"too long":  {text(200, `{"allow":true,"x":"`+strings.Repeat("x", 5000)+`"}`), ws.ErrUnavailable},
		"401":       {text(401, `{"allow":true}`), ws.ErrUnavailable},
		"500":       {text(500, `{"allow":true}`), ws.ErrUnavailable},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, ws.ErrUnavailable},
		"cut":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ws.ErrUnavailable},
		"silence": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ws.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := 10 * time.Second
			if name == "silence" {
				timeout = 50 * time.Millisecond
			}
			a := newApplication(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // so that the server notices a client that goes
				test.answer(w, r)
			})
			_, err := a.rule(t, time.Minute, timeout).Authorize(t.Context(), ws.Access{Session: s, Document: "d", Action: ws.ActionRead})
			if !errors.Is(err, test.want) {
				t.Errorf("%v, not %v", err, test.want)
			}
			if errors.Is(err, ws.ErrForbidden) && errors.Is(err, ws.ErrUnavailable) {
				t.Error("a no and a don't know at once")
			}
		})
	}
	if n := elsewhere.asked.Load(); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// A crowd that asks the same asks once, and later not at all; who asks
// something else is asked for.
func TestCallbackIsAskedOnce(t *testing.T) {
	s := session(t, nil)
	a := newApplication(t, text(200, `{"allow":true}`))
	r := a.rule(t, time.Minute, 0)
	ask := func(document string, action ws.Action) {
		t.Helper()
		if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: document, Action: action}); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { ask("d", ws.ActionRead) })
	}
	wg.Wait()
	ask("d", ws.ActionRead)
	if n := a.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	ask("d", ws.ActionWrite)
	ask("e", ws.ActionRead)
	if n := a.asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

// More questions than there may be at once wait for their turn.
func TestCallbackConcurrencyIsBounded(t *testing.T) {
	s := session(t, nil)
	var now, most atomic.Int64
	full := make(chan struct{})
	reached := sync.OnceFunc(func() { close(full) }) // the last one may come when another has gone
	a := newApplication(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == questions {
			reached()
		}
		select {
		case <-full: // as many as may be are here at once
		case <-r.Context().Done():
		}
		text(200, `{"allow":true}`)(w, r)
	})
	r := a.rule(t, time.Minute, 30*time.Second)
	var wg sync.WaitGroup
	for i := range questions + 1 {
		wg.Go(func() {
			if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: fmt.Sprint(i), Action: ws.ActionRead}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n != questions {
		t.Errorf("%d questions at once", n)
	}
}

// A yes outlives the application's restart, but not for long; a no and a
// question that was never answered do not become a yes.
func TestCallbackWithoutAnswers(t *testing.T) {
	const cache = 300 * time.Millisecond
	s := session(t, nil)
	a := newApplication(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		text(200, fmt.Sprintf(`{"allow":%t}`, !strings.Contains(string(body), `"no"`)))(w, r)
	})
	r := a.rule(t, cache, 10*time.Second)
	ask := func(document string) error {
		_, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: document, Action: ws.ActionRead})
		return err
	}
	began := time.Now()
	if err := ask("yes"); err != nil {
		t.Fatal(err)
	}
	if err := ask("no"); !errors.Is(err, ws.ErrForbidden) {
		t.Fatal(err)
	}
	answered := time.Now()
	a.answers(text(503, ""))
	r.callback.timeout = cache / 10 // else it were the pause between attempts
	for ended := false; !ended; {
		err := ask("yes")
		switch {
		case err == nil && time.Since(answered) > 2*cache+time.Second:
			t.Fatal("a yes without end")
		case err != nil && !errors.Is(err, ws.ErrUnavailable):
			t.Fatal(err)
		case err != nil && time.Since(began) < 2*cache:
			t.Fatal("a yes ended too soon")
		}
		ended = err != nil
	}
	if err := ask("no"); !errors.Is(err, ws.ErrUnavailable) {
		t.Error(err)
	}
	if err := ask("new"); !errors.Is(err, ws.ErrUnavailable) {
		t.Error(err)
	}
	a.answers(text(200, `{"allow":true}`))
	r.callback.timeout = 10 * time.Second
	if err := ask("yes"); err != nil {
		t.Error(err)
	}
}

// Answers that are worth nothing any more are forgotten.
func TestCallbackForgets(t *testing.T) {
	s := session(t, nil)
	a := newApplication(t, text(200, `{"allow":true}`))
	r := a.rule(t, time.Millisecond, 10*time.Second)
	for i := range 100 {
		if _, err := r.Authorize(t.Context(), ws.Access{Session: s, Document: fmt.Sprint(i), Action: ws.ActionRead}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // longer than answers hold
	}
	r.callback.mu.Lock()
	defer r.callback.mu.Unlock()
	if n := len(r.callback.answers); n > 50 {
		t.Errorf("%d answers are kept", n)
	}
}

// A client that goes does not take the answer from those who wait for the
// same.
func TestCallbackOutlivesWhoAsked(t *testing.T) {
	s := session(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	a := newApplication(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		text(200, `{"allow":true}`)(w, r)
	})
	if _, err := a.rule(t, time.Minute, 0).Authorize(ctx, ws.Access{Session: s, Document: "d", Action: ws.ActionRead}); err != nil {
		t.Error(err)
	}
}
