package webapp

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/webapp/accounts"
)

//go:embed templates
var templateFiles embed.FS

// templates by page name: the base layout with that page's content.
var templates = parseTemplates("home", "login", "register", "account", "document", "pair", "error")

func parseTemplates(names ...string) map[string]*template.Template {
	base := template.Must(template.New("base.html").Funcs(template.FuncMap{
		"asset": assetURL,
		"ago":   func(t time.Time) string { return ago(time.Since(t)) },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(templateFiles, "templates/base.html"))
	all := make(map[string]*template.Template)
	for _, name := range names {
		all[name] = template.Must(template.Must(base.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
	}
	return all
}

// page is what every template gets.
type page struct {
	Title    string
	User     *user  // nil: nobody is logged in
	ChatName string // the session's chat.name
	Next     string // where a login from this page comes back to; empty: home
	Away     bool   // the session store did not answer; who is logged in is not known
	Error    string // what was wrong with the form that was sent
	Data     any    // the page's own
}

type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// newPage fills in what s says; s may be nil.
func newPage(title string, s *sessionstore.Session) page {
	p := page{Title: title, User: userOf(s)}
	if s != nil {
		p.ChatName = chatName(s)
	}
	return p
}

func userOf(s *sessionstore.Session) *user {
	if s == nil || s.UserID() == "" {
		return nil
	}
	return &user{ID: s.UserID(), Name: s.UserName()}
}

// LoginURL is the login page that leads back to this one.
func (p page) LoginURL() string { return withNext("/login", p.Next) }

// RegisterURL is the registration page that leads back to this one.
func (p page) RegisterURL() string { return withNext("/register", p.Next) }

func withNext(path, next string) string {
	if next == "" || next == "/" {
		return path
	}
	return path + "?next=" + url.QueryEscape(next)
}

// render writes a whole page or, when its template fails, an error: never
// half a page.
func (a *app) render(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, "base.html", p); err != nil {
		a.log.ErrorContext(r.Context(), "page failed", "page", name, "err", err)
		problem.Respond(w, r, problem.From(err))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = body.WriteTo(w) // an error means that the client has gone
}

// fail answers with p, as one of our pages when the client is a browser.
func (a *app) fail(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	if !problem.PrefersHTML(r) {
		problem.JSON(w, p)
		return
	}
	retryAfter(w, p.RetryAfter)
	view := page{Away: true}
	if p.Status != http.StatusServiceUnavailable {
		s, err := a.session(w, r)
		view = newPage("", s)
		view.Away = err != nil
	}
	view.Title, view.Data = http.StatusText(p.Status), p
	a.render(w, r, p.Status, "error", view)
}

// failure answers with what err stands for. It is the one place where an
// error becomes a status, and where one that nobody expected is logged.
func (a *app) failure(w http.ResponseWriter, r *http.Request, err error) {
	p := toProblem(err)
	switch {
	case r.Context().Err() != nil: // the client has gone, which is no fault
	case p.Status == http.StatusInternalServerError:
		a.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	case p.Status == http.StatusServiceUnavailable:
		a.log.WarnContext(r.Context(), "request refused", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	a.fail(w, r, p)
}

func toProblem(err error) problem.Problem {
	var throttled *accounts.ThrottledError
	switch {
	case errors.As(err, &throttled):
		return problem.Problem{
			Status: http.StatusTooManyRequests, Code: "throttled", RetryAfter: throttled.RetryAfter,
			Detail: "Too many failed logins. Wait a minute, then try again.",
		}
	case errors.Is(err, accounts.ErrBusy):
		return problem.Unavailable("Too many people are logging in at once.")
	case errors.Is(err, accounts.ErrUnavailable):
		return problem.Unavailable("The user accounts cannot be reached.")
	}
	return problem.From(err)
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

// ago says how long ago something was, as coarsely as people do.
func ago(d time.Duration) string {
	unit := func(n int, name string) string {
		if n == 1 {
			return "1 " + name + " ago"
		}
		return strconv.Itoa(n) + " " + name + "s ago"
	}
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return unit(int(d.Minutes()), "minute")
	case d < 24*time.Hour:
		return unit(int(d.Hours()), "hour")
	default:
		return unit(int(d.Hours()/24), "day")
	}
}
