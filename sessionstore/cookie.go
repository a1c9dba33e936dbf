package sessionstore

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/sessions"
)

// cookieDefaults fills what o leaves open and forces what is not open to
// choice: page scripts never see the session ID, and a cookie whose name
// promises __Host- or __Secure- keeps the promise.
func cookieDefaults(name string, o sessions.Options) sessions.Options {
	o.HttpOnly = true
	if o.Path == "" {
		o.Path = "/"
	}
	if o.SameSite == 0 {
		o.SameSite = http.SameSiteLaxMode
	}
	if strings.HasPrefix(name, "__Host-") || strings.HasPrefix(name, "__Secure-") || o.SameSite == http.SameSiteNoneMode {
		o.Secure = true
	}
	return o
}

// validCookie tells what is wrong with a configured cookie, with what a
// browser would refuse silently.
func validCookie(name string, o sessions.Options) error {
	if err := (&http.Cookie{Name: name, Value: "x", Path: o.Path, Domain: o.Domain}).Valid(); err != nil {
		return fmt.Errorf("sessionstore: session cookie %q: %w", name, err)
	}
	if strings.HasPrefix(name, "__Host-") && (o.Domain != "" || o.Path != "" && o.Path != "/") {
		return fmt.Errorf("sessionstore: session cookie %q: a __Host- cookie has no domain and the path /", name)
	}
	if o.MaxAge < 0 {
		return fmt.Errorf("sessionstore: session cookie %q: MaxAge must not be negative", name)
	}
	return nil
}

// idFromCookies returns the first well-formed session ID among the request's
// cookies of this name. A browser may send several (set for other paths or
// parent domains); what is malformed is passed over and never used.
func idFromCookies(r *http.Request, name string) (id string, ok bool) {
	for _, c := range r.CookiesNamed(name) {
		if ValidID(c.Value) {
			return c.Value, true
		}
	}
	return "", false
}

// IDFromRequest returns the session ID that the request's cookie carries, or
// false when there is none that is well formed. The ID is only a claim: it
// says nothing about whether such a session exists. It costs no I/O.
func (st *Store) IDFromRequest(r *http.Request) (id string, ok bool) {
	return idFromCookies(r, st.cookie)
}

// SetCookie gives the client s's current ID, for as long as s is to be
// remembered. Call it before the response's header is written, after a typed
// session was created, was rotated, or says that it is Renewed; [Store.Save]
// does so by itself. It does nothing when s does not know its ID.
func (st *Store) SetCookie(w http.ResponseWriter, r *http.Request, s *Session) {
	if s.ID() == "" {
		return
	}
	options := st.options
	options.MaxAge = st.ageOf(s)
	st.setCookie(w, r, s.ID(), st.cookie, options)
}

// ageOf is the MaxAge of the cookie that carries s's ID.
func (st *Store) ageOf(s *Session) int {
	if age := s.cookieAge(time.Now()); age > 0 {
		return age
	}
	return st.options.MaxAge
}

// ClearCookie makes the client forget the session cookie. It does not end
// the session.
func (st *Store) ClearCookie(w http.ResponseWriter, r *http.Request) {
	st.clearCookie(w, r, st.cookie, st.options)
}

func (st *Store) setCookie(w http.ResponseWriter, r *http.Request, id, name string, o sessions.Options) {
	o = cookieDefaults(name, o)
	o.Secure = o.Secure || r.TLS != nil || r.URL != nil && r.URL.Scheme == "https"
	c := &http.Cookie{
		Name: name, Value: id, Path: o.Path, Domain: o.Domain, MaxAge: o.MaxAge, Secure: o.Secure,
		HttpOnly: true, SameSite: o.SameSite, Partitioned: o.Partitioned,
	}
	switch {
	case o.MaxAge > 0:
		c.Expires = time.Now().Add(time.Duration(o.MaxAge) * time.Second)
	case o.MaxAge < 0:
		c.Expires = time.Unix(1, 0)
	}
	replaceCookie(w.Header(), c)
}

func (st *Store) clearCookie(w http.ResponseWriter, r *http.Request, name string, o sessions.Options) {
	o.MaxAge = -1
	st.setCookie(w, r, "", name, o)
}

// replaceCookie sets c and takes back an earlier Set-Cookie of its name in
// the same response: which of two a browser keeps is not to be left to it.
func replaceCookie(h http.Header, c *http.Cookie) {
	h["Set-Cookie"] = slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		name, _ := cookieLine(line)
		return name == c.Name
	})
	h.Add("Set-Cookie", c.String())
}

// cookieIn returns the value that a response sets the cookie to.
func cookieIn(h http.Header, name string) (value string, ok bool) {
	for _, line := range h["Set-Cookie"] {
		if n, v := cookieLine(line); n == name {
			return v, true
		}
	}
	return "", false
}

// cookieLine returns the name and the value of a Set-Cookie line.
func cookieLine(line string) (name, value string) {
	line, _, _ = strings.Cut(line, ";")
	name, value, _ = strings.Cut(line, "=")
	return strings.TrimSpace(name), strings.TrimSpace(value)
}
