package webapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// sessionView is the session as page scripts see it. All but Values is null
// without a session.
type sessionView struct {
	User          *user                      `json:"user"`
	Handle        *string                    `json:"handle"`
	Values        map[string]json.RawMessage `json:"values"`
	ExpiresAt     *time.Time                 `json:"expires_at"`
	IdleExpiresAt *time.Time                 `json:"idle_expires_at"`
}

func (a *app) viewOf(s *sessionstore.Session) sessionView {
	if s == nil {
		return sessionView{Values: map[string]json.RawMessage{}}
	}
	snapshot := s.Snapshot()
	handle, expires, idle := snapshot.Handle(), snapshot.ExpiresAt().UTC(), snapshot.IdleExpiresAt().UTC()
	view := sessionView{
		User: userOf(s), Handle: &handle, Values: snapshot.Readable(a.Readable),
		ExpiresAt: &expires, IdleExpiresAt: &idle,
	}
	if view.Values == nil {
		view.Values = map[string]json.RawMessage{}
	}
	return view
}

// getSession answers without a session too: nobody is an answer.
func (a *app) getSession(w http.ResponseWriter, r *http.Request) {
	s, err := a.session(w, r)
	if err != nil {
		a.apiFailure(w, r, err)
		return
	}
	writeJSON(w, a.viewOf(s))
}

func (a *app) patchSession(w http.ResponseWriter, r *http.Request) {
	change, p := readPatch(w, r)
	if p == nil {
		p = a.checkPatch(change)
	}
	if p != nil {
		problem.JSON(w, *p)
		return
	}
	s, err := a.liveSession(w, r)
	if errors.Is(err, sessionstore.ErrNotFound) {
		s, err = nil, nil
		if len(change.Set) > 0 { // a visitor who wants something remembered
			s = a.Factory.New()
		}
	}
	if err == nil && s != nil {
		err = a.apply(w, r, s, change)
	}
	if err != nil {
		a.apiFailure(w, r, err)
		return
	}
	writeJSON(w, a.viewOf(s))
}

// apply writes change to s in one step.
func (a *app) apply(w http.ResponseWriter, r *http.Request, s *sessionstore.Session, change sessionstore.Change) error {
	if err := change.Apply(s); err != nil {
		return err
	}
	return a.save(w, r, s)
}

// checkPatch looks at all names before anything is written.
func (a *app) checkPatch(change sessionstore.Change) *problem.Problem {
	forbidden := func(name string) *problem.Problem {
		return &problem.Problem{
			Status: http.StatusForbidden, Code: "forbidden",
			Detail: fmt.Sprintf("The attribute %q is not among client_writable; nothing was written.", name),
		}
	}
	for name := range change.Set {
		if !a.Writable.Match(name) {
			return forbidden(name)
		}
	}
	for _, name := range change.Delete {
		if !a.Writable.Match(name) {
			return forbidden(name)
		}
		if _, both := change.Set[name]; both {
			return badRequest(fmt.Sprintf("The attribute %q is both set and deleted.", name))
		}
	}
	return nil
}

// maxPatch bounds the body of a PATCH; a session that would grow too large
// is refused by the store.
const maxPatch = 128 << 10

func readPatch(w http.ResponseWriter, r *http.Request) (sessionstore.Change, *problem.Problem) {
	if !isJSON(r.Header.Get("Content-Type")) {
		return sessionstore.Change{}, &problem.Problem{
			Status: http.StatusUnsupportedMediaType, Code: "not_json", Detail: "Send the body as application/json.",
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPatch))
	if err != nil {
		p := badForm(err)
		if p.Status == http.StatusRequestEntityTooLarge {
			p.Detail = fmt.Sprintf("The body has more than %d bytes.", maxPatch)
		}
		return sessionstore.Change{}, &p
	}
	change, err := sessionstore.ParseChange(body)
	if err != nil {
		return sessionstore.Change{}, badRequest(`Send {"set": {name: value}, "delete": [name]}: ` + err.Error() + ".")
	}
	return change, nil
}

// isJSON reports whether a body of this type is JSON; one without a type is
// taken for what is wanted.
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return contentType == "" || err == nil && t == "application/json"
}

func badRequest(detail string) *problem.Problem {
	return &problem.Problem{Status: http.StatusBadRequest, Code: "bad_request", Detail: detail}
}

// renewSession sets the cookie again: with the current ID, after a rotation
// that only sockets have seen, and with its full age.
func (a *app) renewSession(w http.ResponseWriter, r *http.Request) {
	s, err := a.liveSession(w, r)
	if err != nil {
		a.apiFailure(w, r, err)
		return
	}
	a.Store.SetCookie(w, r, s)
	writeJSON(w, a.viewOf(s))
}

func (a *app) issueTicket(w http.ResponseWriter, r *http.Request) {
	s, err := a.liveSession(w, r)
	if err != nil {
		a.apiFailure(w, r, err)
		return
	}
	ticket, life, err := a.Factory.IssueTicket(r.Context(), s)
	if err != nil {
		a.apiFailure(w, r, err)
		return
	}
	writeJSON(w, struct {
		Ticket    string `json:"ticket"`
		ExpiresIn int    `json:"expires_in"` // seconds
	}{ticket, int(life.Seconds())})
}

// apiFailure is failure for programs: never a page.
func (a *app) apiFailure(w http.ResponseWriter, r *http.Request, err error) {
	r = r.Clone(r.Context())
	r.Header.Del("Accept")
	a.failure(w, r, err)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error means that the client has gone
}
