package webapp_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

func TestAccountShowsAndRevokesSessions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		s.add(t, "eve")
		const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
		here, phone, third, eve := s.browser(t), s.browser(t), s.browser(t), s.browser(t)
		here.post("/login", url.Values{"username": {"ada"}, "password": {password}}, "User-Agent", firefox)
		phone.post("/login", url.Values{"username": {"ada"}, "password": {password}}, "User-Agent", `<b>"phone"</b>/1.0 x`)
		third.login("ada")
		eve.login("eve")
		handle := func(b *browser) string { return *b.session().Handle }
		hereHandle, phoneHandle, eveHandle := handle(here), handle(phone), handle(eve)

		page := here.get("/account").body
		for _, want := range []string{"Firefox on Linux", "127.0.0.1", hereHandle, phoneHandle, handle(third), "&lt;b&gt;"} {
			if !strings.Contains(page, want) {
				t.Errorf("the account page lacks %q", want)
			}
		}
		if strings.Contains(page, eveHandle) || strings.Count(page, "aria-current") != 1 ||
			strings.Index(page, hereHandle) > strings.Index(page, phoneHandle) {
			t.Errorf("the account page is wrong:\n%s", page)
		}

		for _, handle := range []string{eveHandle, sessionstore.NewHandle(), "x", "*", strings.Repeat("a", 26)} {
			if a := here.post("/account/sessions/"+handle+"/revoke", nil); a.status != http.StatusNotFound {
				t.Errorf("revoke %s: %d", handle, a.status)
			}
		}
		if eve.session().User == nil {
			t.Fatal("somebody else's session was ended")
		}
		if a := here.post("/account/sessions/"+phoneHandle+"/revoke", nil); a.status != http.StatusSeeOther || a.header.Get("Location") != "/account" {
			t.Errorf("revoke: %d %s", a.status, a.body)
		}
		if phone.session().User != nil || third.session().User == nil || here.session().User == nil {
			t.Error("revoke ended another session")
		}
		if a := here.post("/account/sessions/"+phoneHandle+"/revoke", nil); a.status != http.StatusNotFound {
			t.Errorf("revoke again: %d", a.status)
		}
		phone.login("ada")
		if a := here.post("/account/sessions/revoke-others", nil); a.status != http.StatusSeeOther {
			t.Errorf("revoke others: %d", a.status)
		}
		if phone.session().User != nil || third.session().User != nil || here.session().User == nil || eve.session().User == nil {
			t.Error("revoke others ended the wrong ones")
		}
		if a := here.post("/account/sessions/"+hereHandle+"/revoke", nil); a.status != http.StatusSeeOther || a.header.Get("Location") != "/" || here.session().User != nil {
			t.Errorf("revoke one's own: %d", a.status)
		}
		for _, path := range []string{"/account/sessions/" + eveHandle + "/revoke", "/account/sessions/revoke-others", "/account/chat-name"} {
			if a := here.post(path, nil); a.header.Get("Location") != "/login?next=%2Faccount" {
				t.Errorf("%s by nobody: %d %v", path, a.status, a.header)
			}
		}
	})
}

// The chat name is one value, whoever writes it.
// Another application logs somebody else in, in the same session; the list of
// the user before is late.
func TestRevokeWhatIsSomebodyElsesByNow(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		u := s.add(t, "ada")
		here, shared := s.browser(t), s.browser(t)
		here.login("ada")
		shared.login("ada")
		handle, key, rdb := *shared.session().Handle, "session:"+shared.cookie(), r.Client(t)
		stored, err := rdb.Get(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := rdb.Set(t.Context(), key, strings.ReplaceAll(stored, u.ID, "77"), time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		if a := here.post("/account/sessions/"+handle+"/revoke", nil); a.status != http.StatusNotFound {
			t.Errorf("revoke: %d", a.status)
		}
		if v := shared.session(); v.User == nil || v.User.ID != "77" {
			t.Errorf("the session: %+v", v)
		}
	})
}

func TestChatName(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		b.login("ada")
		if a := b.post("/account/chat-name", url.Values{"name": {" Ada <3 "}}); a.status != http.StatusSeeOther {
			t.Fatalf("form: %d %s", a.status, a.body)
		}
		if got := b.session().Values["chat.name"]; got != "Ada <3" {
			t.Errorf("the API says %q", got)
		}
		// As a socket does: by session ID, without a request.
		_, err := s.factory.Update(t.Context(), b.cookie(), func(s *sessionstore.Session) error { return s.Set("chat.name", "Countess & Co") })
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/", "/account", "/documents/x"} {
			if page := b.get(path).body; !strings.Contains(page, "Countess &amp; Co") {
				t.Errorf("%s does not show the name", path)
			}
		}
		b.patch(`{"set":{"chat.name":{"not":"a name"}}}`)
		if a := b.get("/documents/x"); a.status != 200 {
			t.Errorf("a strange name: %d", a.status)
		}
		for _, name := range []string{strings.Repeat("x", 65), "\xff"} {
			if a := b.post("/account/chat-name", url.Values{"name": {name}}); a.status != http.StatusBadRequest {
				t.Errorf("name %.5q: %d", name, a.status)
			}
		}
		b.post("/account/chat-name", url.Values{"name": {"  "}})
		if _, there := b.session().Values["chat.name"]; there {
			t.Error("an empty name does not delete")
		}
	})
}
