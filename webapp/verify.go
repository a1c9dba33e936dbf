package webapp

import (
	"net/http"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/internal/userheader"
)

// verify tells another proxy (Caddy's forward_auth, nginx' auth_request,
// Traefik's ForwardAuth) who sent the request that it asks about: 200 with the
// headers of userheader, or 401; 503 when that cannot be known. It counts as
// the session's activity, as a page does.
//
// With ?redirect=1 a browser that wants a page is sent to the login page, and
// from there back to X-Forwarded-Uri. That is a path and never leaves this
// host, so that it need not come from somebody who is trusted.
func (a *app) verify(w http.ResponseWriter, r *http.Request) {
	s, err := a.session(w, r)
	if err != nil {
		a.failure(w, r, err)
		return
	}
	if u := userOf(s); u != nil {
		userheader.Set(w.Header(), u.ID, u.Name, s.Handle())
		w.WriteHeader(http.StatusOK)
		return
	}
	if page := r.Header.Get("X-Forwarded-Method"); r.URL.Query().Get("redirect") == "1" && problem.PrefersHTML(r) &&
		(page == "" || page == http.MethodGet || page == http.MethodHead) {
		http.Redirect(w, r, withNext("/login", localPath(r.Header.Get("X-Forwarded-Uri"))), http.StatusFound)
		return
	}
	a.fail(w, r, problem.Problem{Status: http.StatusUnauthorized, Code: "login_required", Detail: "Log in first."})
}
