package webapp

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// home is public: without Redis it is served with a notice.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s, err := a.session(w, r)
	p := newPage("", s)
	p.Away = err != nil
	p.Next = "/"
	p.Data = formData{
		Registration: err == nil && p.User == nil && a.offersRegistration(r),
		First:        a.Registration == RegisterFirstUser,
	}
	a.render(w, r, http.StatusOK, "home", p)
}

// roomID is what a document's or pair's ID looks like.
var roomID = regexp.MustCompile(`^[A-Za-z0-9._~:-]{1,128}$`)

var badRoom = problem.Problem{
	Status: http.StatusBadRequest, Code: "bad_id",
	Detail: "An ID has 1 to 128 characters: letters, digits and . _ ~ : -",
}

// openRoom goes from a form's ?id= to the page of that document or pair.
func (a *app) openRoom(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSpace(r.URL.Query().Get("id"))
	switch {
	case id == "":
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case !validRoom(id):
		a.fail(w, r, badRoom)
	default:
		http.Redirect(w, r, r.URL.Path+"/"+url.PathEscape(id), http.StatusSeeOther)
	}
}

// validRoom refuses "." and ".." too: as a path they mean another page.
func validRoom(id string) bool { return roomID.MatchString(id) && id != "." && id != ".." }

// document needs somebody logged in, as its socket does.
func (a *app) document(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !validRoom(id) {
		a.fail(w, r, badRoom)
		return
	}
	s, ok := a.loggedIn(w, r, r.URL.EscapedPath())
	if !ok {
		return
	}
	p := newPage(id, s)
	p.Next = r.URL.EscapedPath()
	p.Data = id
	a.render(w, r, http.StatusOK, "document", p)
}
