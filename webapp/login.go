package webapp

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

// credentials are what the login and registration forms send. The password
// is never shown again.
type credentials struct {
	Username, password string
	next               string
	remember           bool // the cookie is to outlive the browser
}

// maxForm bounds the body of a form: the longest password, escaped, and more.
const maxForm = 16 << 10

// loginForm needs no Redis: it is shown even when nobody can log in.
func (a *app) loginForm(w http.ResponseWriter, r *http.Request) {
	s, err := a.session(w, r)
	p := newPage("Log in", s)
	p.Away = err != nil
	p.Next = localPath(r.URL.Query().Get("next"))
	p.Data = formData{Registration: err == nil && a.offersRegistration(r)}
	a.render(w, r, http.StatusOK, "login", p)
}

// formData is what the templates of both forms get.
type formData struct {
	Username     string
	Remember     bool
	Registration bool // offer to make an account
	First        bool // it will be the first one
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	c, ok := a.credentials(w, r, "login")
	if !ok {
		return
	}
	u, err := a.Accounts.Verify(r.Context(), c.Username, c.password, clientAddress(r))
	a.metrics.logins.WithLabelValues(result(err)).Inc()
	if err != nil {
		a.logFailedLogin(w, r, u, err)
		a.refuse(w, r, "login", c, err)
		return
	}
	a.enter(w, r, u, c)
}

// logFailedLogin names the account whose password was wrong, if there is one.
// The name that was typed is not logged: it may be a password, in the wrong field.
func (a *app) logFailedLogin(w http.ResponseWriter, r *http.Request, u accounts.User, err error) {
	handle := ""
	if s, _ := a.session(w, r); s != nil {
		handle = s.Handle()
	}
	a.log.InfoContext(r.Context(), "login failed", "reason", result(err), "user", u.ID, "session", handle, "client", clientAddress(r))
}

// enter logs u in and goes on to where c says.
func (a *app) enter(w http.ResponseWriter, r *http.Request, u accounts.User, c credentials) {
	current, err := a.session(w, r)
	if err != nil && !errors.Is(err, sessionstore.ErrUndecodable) {
		a.failure(w, r, err)
		return
	}
	ctx, cancel := unhurried(r)
	defer cancel()
	s, err := a.Factory.Login(ctx, current, sessionstore.Login{UserID: u.ID, UserName: u.Name, Remember: c.remember})
	if err != nil {
		a.failure(w, r, err)
		return
	}
	if err := a.stillThere(ctx, u, s); err != nil {
		a.refuse(w, r, "login", c, err)
		return
	}
	a.Store.SetCookie(w, r, s)
	http.Redirect(w, r, cmp.Or(c.next, "/"), http.StatusSeeOther)
}

// stillThere ends s again when its user's account was removed while the
// password was being checked. Who removes an account ends its sessions after
// that: those that they may have missed were made before this looks.
func (a *app) stillThere(ctx context.Context, u accounts.User, s *sessionstore.Session) error {
	there, err := a.Accounts.Has(ctx, u)
	if err == nil && there {
		return nil
	}
	if err == nil {
		err = accounts.ErrBadCredentials
	}
	if ending := s.Destroy(ctx, sessionstore.ReasonRevoked); ending != nil && !errors.Is(ending, sessionstore.ErrEnded) && !errors.Is(ending, sessionstore.ErrNotFound) {
		return ending
	}
	return err
}

func (a *app) registerForm(w http.ResponseWriter, r *http.Request) {
	s, err := a.session(w, r)
	if err != nil {
		a.failure(w, r, err)
		return
	}
	if !a.mayRegister(w, r) {
		return
	}
	p := newPage("Create an account", s)
	p.Next = localPath(r.URL.Query().Get("next"))
	p.Data = formData{First: a.Registration == RegisterFirstUser}
	a.render(w, r, http.StatusOK, "register", p)
}

func (a *app) register(w http.ResponseWriter, r *http.Request) {
	if !a.mayRegister(w, r) {
		return
	}
	c, ok := a.credentials(w, r, "register")
	if !ok {
		return
	}
	add := a.Accounts.Add
	if a.Registration == RegisterFirstUser {
		add = a.Accounts.AddFirst
	}
	u, err := add(r.Context(), c.Username, c.password)
	a.metrics.registrations.WithLabelValues(result(err)).Inc()
	if err != nil {
		a.refuse(w, r, "register", c, err)
		return
	}
	a.log.InfoContext(r.Context(), "registered", "user", u.ID, "client", clientAddress(r))
	a.enter(w, r, u, c)
}

// mayRegister answers for itself when nobody may, or when that is not known.
func (a *app) mayRegister(w http.ResponseWriter, r *http.Request) bool {
	open, err := a.registrationOpen(r)
	switch {
	case err != nil:
		a.failure(w, r, err)
	case !open:
		a.fail(w, r, registrationClosed)
	}
	return open
}

var registrationClosed = problem.Problem{
	Status: http.StatusForbidden, Code: "registration_closed",
	Detail: "Registration is closed here. Ask the administrator for an account.",
}

func (a *app) registrationOpen(r *http.Request) (bool, error) {
	if a.Registration != RegisterFirstUser {
		return a.Registration == RegisterOpen, nil
	}
	found, err := a.Accounts.Any(r.Context())
	return err == nil && !found, err
}

// offersRegistration is registrationOpen for a link: once there was an
// account it does not ask again.
func (a *app) offersRegistration(r *http.Request) bool {
	if a.Registration != RegisterFirstUser {
		return a.Registration == RegisterOpen
	}
	if a.anyAccount.Load() {
		return false
	}
	open, err := a.registrationOpen(r)
	if err == nil && !open {
		a.anyAccount.Store(true)
	}
	return open
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	_, err := a.session(w, r)
	if err == nil || errors.Is(err, sessionstore.ErrUndecodable) {
		err = a.Store.Logout(w, r)
	}
	if err != nil {
		// Forgetting the cookie alone would leave the session alive: say so.
		a.failure(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// credentials reads the form that page sends. When a field is missing it has
// answered already.
func (a *app) credentials(w http.ResponseWriter, r *http.Request, page string) (credentials, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		a.fail(w, r, badForm(err))
		return credentials{}, false
	}
	c := credentials{
		Username: strings.TrimSpace(r.PostForm.Get("username")),
		password: r.PostForm.Get("password"),
		next:     localPath(r.FormValue("next")),
		remember: r.PostForm.Get("remember") != "",
	}
	if c.Username == "" || c.password == "" {
		a.refuse(w, r, page, c, errMissingFields)
		return credentials{}, false
	}
	return c, true
}

var errMissingFields = errors.New("fill in the name and the password")

func badForm(err error) problem.Problem {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Detail: "The form is too large."}
	}
	return problem.Problem{Status: http.StatusBadRequest, Code: "bad_form", Detail: "The form cannot be read."}
}

// refuse shows the form again with what was wrong, or answers a program with
// a problem.
func (a *app) refuse(w http.ResponseWriter, r *http.Request, name string, c credentials, err error) {
	p, ok := formProblem(err)
	if !ok {
		a.failure(w, r, err)
		return
	}
	if !problem.PrefersHTML(r) {
		problem.JSON(w, p)
		return
	}
	retryAfter(w, p.RetryAfter)
	s, _ := a.session(w, r) // only for who is logged in already
	titles := map[string]string{"login": "Log in", "register": "Create an account"}
	view := newPage(titles[name], s)
	view.Error, view.Next = p.Detail, c.next
	view.Data = formData{Username: c.Username, Remember: c.remember, Registration: a.offersRegistration(r), First: a.Registration == RegisterFirstUser}
	a.render(w, r, p.Status, name, view)
}

// formProblem is what the user of a form can do something about.
func formProblem(err error) (problem.Problem, bool) {
	var throttled *accounts.ThrottledError
	status, code := 0, ""
	switch {
	case errors.As(err, &throttled):
		return toProblem(err), true
	case errors.Is(err, accounts.ErrNotFirst):
		return registrationClosed, true
	case errors.Is(err, accounts.ErrBadCredentials):
		status, code = http.StatusUnauthorized, "bad_credentials"
	case errors.Is(err, accounts.ErrExists):
		status, code = http.StatusConflict, "name_taken"
	case errors.Is(err, errMissingFields):
		status, code = http.StatusBadRequest, "missing_fields"
	case errors.Is(err, accounts.ErrBadName), errors.Is(err, accounts.ErrBadPassword):
		status, code = http.StatusBadRequest, "bad_fields"
	default:
		return problem.Problem{}, false
	}
	text := err.Error()
	return problem.Problem{Status: status, Code: code, Detail: strings.ToUpper(text[:1]) + text[1:] + "."}, true
}

// localPath returns next when it is a path on this host, else "".
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > 2048 || u.Scheme != "" || u.Host != "" || u.User != nil ||
		!plainPath(next) || !plainPath(u.Path) {
		return ""
	}
	return next
}

// plainPath: browsers take //host and /\host for another host, and drop
// control characters before they look.
func plainPath(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") &&
		!strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f || c == '\\' })
}
