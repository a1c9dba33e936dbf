package webapp

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-6230208e/tandem/internal/problem"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// sessionRow is one of the user's sessions on the account page.
type sessionRow struct {
	Handle            string
	Device, UserAgent string
	Address           string
	Created, LastSeen time.Time
	Current           bool
}

func (a *app) account(w http.ResponseWriter, r *http.Request) {
	s, ok := a.loggedIn(w, r, "/account")
	if !ok {
		return
	}
	list, err := a.Factory.List(r.Context(), s.UserID())
	if err != nil {
		a.failure(w, r, err)
		return
	}
	rows := make([]sessionRow, len(list))
	for i, info := range list {
		rows[i] = sessionRow{
			Handle: info.Handle, Device: device(info.UserAgent), UserAgent: info.UserAgent, Address: info.Address,
			Created: info.Created, LastSeen: info.LastSeen, Current: info.Handle == s.Handle(),
		}
	}
	slices.SortFunc(rows, func(x, y sessionRow) int {
		switch {
		case x.Current:
			return -1
		case y.Current:
			return 1
		}
		return cmp.Or(y.LastSeen.Compare(x.LastSeen), strings.Compare(x.Handle, y.Handle))
	})
	p := newPage("Your account", s)
	p.Next = "/account"
	p.Data = struct {
		Sessions     []sessionRow
		CanWriteName bool
	}{rows, a.Writable.Match(chatNameKey)}
	a.render(w, r, http.StatusOK, "account", p)
}

// revoke ends one of the user's own sessions. Somebody else's is not told
// from one that does not exist.
func (a *app) revoke(w http.ResponseWriter, r *http.Request) {
	s, ok := a.loggedIn(w, r, "/account")
	if !ok {
		return
	}
	handle := r.PathValue("handle")
	err := a.endOwn(r, s, handle)
	if errors.Is(err, sessionstore.ErrNotFound) {
		a.fail(w, r, problem.Problem{
			Status: http.StatusNotFound, Code: "unknown_session", Detail: "You have no such session; it may have ended already.",
		})
		return
	}
	if err != nil {
		a.failure(w, r, err)
		return
	}
	if handle == s.Handle() {
		a.Store.ClearCookie(w, r)
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func (a *app) endOwn(r *http.Request, s *sessionstore.Session, handle string) error {
	ctx, cancel := unhurried(r)
	defer cancel()
	owner, err := a.ownerOf(ctx, handle)
	if err == nil && owner != s.UserID() {
		return sessionstore.ErrNotFound
	}
	if err == nil {
		err = a.Factory.EndHandle(ctx, handle, sessionstore.ReasonRevoked)
	}
	if errors.Is(err, sessionstore.ErrEnded) {
		return sessionstore.ErrNotFound
	}
	return err
}

// ownerOf returns the user whose session it is, as it says itself: the index
// may be late when another application has logged somebody else in. Of one
// that cannot be decoded the index tells.
func (a *app) ownerOf(ctx context.Context, handle string) (string, error) {
	s, err := a.Factory.LoadHandle(ctx, handle)
	switch {
	case err == nil:
		return s.UserID(), nil
	case errors.Is(err, sessionstore.ErrUndecodable):
		info, err := a.Factory.Info(ctx, handle)
		return info.UserID, err
	default:
		return "", err
	}
}

func (a *app) revokeOthers(w http.ResponseWriter, r *http.Request) {
	s, ok := a.loggedIn(w, r, "/account")
	if !ok {
		return
	}
	ctx, cancel := unhurried(r)
	defer cancel()
	if _, err := a.Factory.EndUser(ctx, s.UserID(), sessionstore.ReasonRevoked, s.Handle()); err != nil {
		a.failure(w, r, err)
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

// maxChatName is what fits a chip.
const maxChatName = 64

// setChatName is the form for browsers without scripts; with them the
// document's socket writes the same attribute.
func (a *app) setChatName(w http.ResponseWriter, r *http.Request) {
	s, ok := a.loggedIn(w, r, "/account")
	if !ok {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		a.fail(w, r, badForm(err))
		return
	}
	name := strings.TrimSpace(r.PostForm.Get("name"))
	p := a.checkPatch(sessionstore.Change{Delete: []string{chatNameKey}})
	if p == nil && (!utf8.ValidString(name) || utf8.RuneCountInString(name) > maxChatName) {
		p = badRequest("A chat name has 64 characters at most.")
	}
	if p != nil {
		a.fail(w, r, *p)
		return
	}
	var err error
	if name == "" {
		err = s.Delete(chatNameKey)
	} else {
		err = s.Set(chatNameKey, name)
	}
	if err == nil {
		err = a.save(w, r, s)
	}
	if err != nil {
		a.failure(w, r, err)
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

// device says in a few words what a User-Agent header stands for. The more
// specific names come first: browsers claim to be each other.
func device(userAgent string) string {
	browser := firstOf(userAgent, [][2]string{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"HeadlessChrome/", "Headless Chrome"},
		{"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	})
	system := firstOf(userAgent, [][2]string{
		{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"},
		{"Macintosh", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"},
	})
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser+system != "":
		return browser + system
	case userAgent == "":
		return "Unknown device"
	}
	product, _, _ := strings.Cut(userAgent, " ")
	if runes := []rune(product); len(runes) > 40 {
		return string(runes[:40]) + "…"
	}
	return product
}

func firstOf(s string, table [][2]string) string {
	for _, row := range table {
		if strings.Contains(s, row[0]) {
			return row[1]
		}
	}
	return ""
}
