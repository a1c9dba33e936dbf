package webapp_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestPatchSession(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		b.login("ada")
		const big = `{"set":{"chat.name":"Ada","chat.id":9007199254740993,"chat.deep":{"a":[1,null,"é\u0000"]},"chat.null":null}}`
		a := b.patch(big)
		if v := decode[view](t, a, http.StatusOK); v.Values["chat.name"] != "Ada" || v.User.Name != "ada" || v.Handle == nil || v.ExpiresAt == nil || v.IdleExpiresAt == nil {
			t.Errorf("PATCH answers %s", a.body)
		}
		if a := b.do("GET", "/api/session", ""); !strings.Contains(a.body, "9007199254740993") {
			t.Errorf("a large integer became another: %s", a.body)
		}
		v := decode[view](t, b.patch(`{"set":{"chat.name":"Eve"},"delete":["chat.id","chat.never"]}`), http.StatusOK)
		if _, there := v.Values["chat.id"]; there || v.Values["chat.name"] != "Eve" {
			t.Errorf("values %v", v.Values)
		}
		if a := b.patch(`{}`); a.status != http.StatusOK {
			t.Errorf("an empty change: %d", a.status)
		}
	})
}

func TestPatchRefusals(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "closed")
	s.add(t, "ada")
	b := s.browser(t)
	b.login("ada")
	b.patch(`{"set":{"chat.name":"Ada"}}`)
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{"set":{"chat.name":"x","user.name":"root"}}`:     {403, "forbidden"},
		`{"set":{"chat.name":"x"},"delete":["user.id"]}`:   {403, "forbidden"},
		`{"set":{"tandem.sid":"x"}}`:                       {403, "forbidden"},
		`{"set":{"":"x"}}`:                                 {403, "forbidden"},
		`{"set":{"chat.name":"x"},"delete":["chat.name"]}`: {400, "bad_request"},
		`{"set":{"chat.name":"x"},"remove":["chat.a"]}`:    {400, "bad_request"},
		`{"set":{"chat.name":"x"}} {}`:                     {400, "bad_request"},
		`{"set":`:                                          {400, "bad_request"},
		`{"set":["chat.name"]}`:                            {400, "bad_request"},
		`{"delete":"chat.name"}`:                           {400, "bad_request"},
		`null`:                                             {400, "bad_request"},
		`[]`:                                               {400, "bad_request"},
		``:                                                 {400, "bad_request"},
		"{\"set\":{\"chat.name\":\"\xff\"}}":               {400, "bad_request"}, // no other reader of the session could decode it
		`{"set":{"chat.name":[1e999]}}`:                    {422, "bad_value"},   // nor these
		`{"set":{"chat.name":"\ud83d"}}`:                   {422, "bad_value"},
		`{"set":{"chat.name":"` + strings.Repeat("x", 100<<10) + `"}}`: {413, "session_too_large"},
		`{"set":{"chat.name":"` + strings.Repeat("x", 200<<10) + `"}}`: {413, "too_large"},
	} {
		a := b.patch(body)
		if a.status != want.status || problemCode(t, a) != want.code {
			t.Errorf("%.60s: %d %s", body, a.status, a.body)
		}
	}
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";"} {
		a := b.do("PATCH", "/api/session", `{"set":{"chat.name":"x"}}`, "Content-Type", contentType)
		if a.status != http.StatusUnsupportedMediaType || problemCode(t, a) != "not_json" {
			t.Errorf("Content-Type %q: %d", contentType, a.status)
		}
	}
	if v := b.session(); v.Values["chat.name"] != "Ada" || v.User.Name != "ada" {
		t.Errorf("a refused PATCH wrote: %+v", v)
	}
	for _, contentType := range []string{"", "application/json; charset=utf-8"} {
		if a := b.do("PATCH", "/api/session", `{"set":{"chat.name":"x"}}`, "Content-Type", contentType); a.status != http.StatusOK {
			t.Errorf("Content-Type %q: %d %s", contentType, a.status, a.body)
		}
	}
}

func TestAnonymousAPI(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		b := s.browser(t)
		if a := b.do("GET", "/api/session", ""); strings.TrimSpace(a.body) != `{"user":null,"handle":null,"values":{},"expires_at":null,"idle_expires_at":null}` {
			t.Errorf("nobody's session: %s", a.body)
		}
		for _, path := range []string{"/api/session/renew", "/api/tickets"} {
			if a := b.do("POST", path, ""); a.status != http.StatusUnauthorized || problemCode(t, a) != "login_required" {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
		for _, body := range []string{`{}`, `{"delete":["chat.name"]}`} {
			if a := b.patch(body); a.status != http.StatusOK || len(a.header["Set-Cookie"]) > 0 {
				t.Errorf("%s makes a session: %d %v", body, a.status, a.header)
			}
		}
		if a := b.patch(`{"set":{"chat.name":"guest"}}`); a.status != http.StatusOK || a.header.Get("Set-Cookie") == "" {
			t.Errorf("PATCH: %d %v", a.status, a.header)
		}
		if v := b.session(); v.User != nil || v.Handle == nil || v.Values["chat.name"] != "guest" {
			t.Errorf("session: %+v", v)
		}
		a := b.do("POST", "/api/session/renew", "")
		if a.status != http.StatusOK || a.header.Get("Set-Cookie") == "" {
			t.Errorf("renew: %d %v", a.status, a.header)
		}
	})
}

// An ID that was never given out is neither adopted nor repeated.
func TestUnknownIDs(t *testing.T) {
	s := newSite(t, redistest.Mini(t), "closed")
	for _, id := range []string{strings.Repeat("A", 103), strings.Repeat("A", 102), "x", "../x", "*", strings.Repeat("a", 103)} {
		b := s.browser(t)
		for _, path := range []string{"/", "/login", "/api/session"} {
			if a := b.do("GET", path, "", "Cookie", "tandem="+id); a.status != 200 || len(a.header["Set-Cookie"]) > 0 {
				t.Errorf("GET %s: %d %v", path, a.status, a.header)
			}
		}
		a := b.do("PATCH", "/api/session", `{"set":{"chat.name":"x"}}`, "Cookie", "tandem="+id, "Content-Type", "application/json")
		if set := a.header.Get("Set-Cookie"); a.status != 200 || !sessionID.MatchString(set) || strings.Contains(set, "="+id+";") {
			t.Errorf("PATCH under %.10s…: %d", id, a.status)
		}
	}
}

func TestTickets(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		s := newSite(t, r, "closed")
		s.add(t, "ada")
		b := s.browser(t)
		b.login("ada")
		got := decode[struct {
			Ticket    string
			ExpiresIn int `json:"expires_in"`
		}](t, b.do("POST", "/api/tickets", ""), http.StatusOK)
		if got.ExpiresIn != 30 || got.Ticket == "" {
			t.Errorf("%+v", got)
		}
		id, err := s.factory.RedeemTicket(t.Context(), got.Ticket)
		if err != nil || id != b.cookie() {
			t.Errorf("the ticket leads elsewhere: %v", err)
		}
		if _, err := s.factory.RedeemTicket(t.Context(), got.Ticket); err == nil {
			t.Error("a ticket is taken twice")
		}
	})
}
