package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// login makes a session of a user, as the web app does.
func login(t *testing.T, server *redistest.Server, id, name string) *sessionstore.Session {
	t.Helper()
	cfg, err := config.Load(config.Source{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := sessionstore.New(server.Client(t), sessionConfig(cfg, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx := sessionstore.WithMeta(context.Background(), sessionstore.Meta{UserAgent: "Browser\x1b[31m", Address: "192.0.2.1"})
	s := f.New()
	if err := s.Set("chat.name", "Countess"); err != nil {
		t.Fatal(err)
	}
	if s, err = f.Login(ctx, s, sessionstore.Login{UserID: id, UserName: name}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUsersAndSessions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		env := map[string]string{"TANDEM_REDIS": server.URL()}
		do := func(stdin string, args ...string) output { t.Helper(); return command(t, stdin, env, args...) }

		do("", "users", "list").expect(t, exitOK, "NAME")
		do("correct horse\n", "users", "add", "ada", "--password-stdin").expect(t, exitOK, "added ada, ID ")
		do("correct horse\r\n", "users", "add", "Ada", "--password-stdin").expect(t, exitFailed, "exists")
		do("short\n", "users", "add", "bob", "--password-stdin").expect(t, exitFailed, "8 to 1024 bytes")
		do("", "users", "add", "bob", "--password-stdin").expect(t, exitFailed, "standard input is empty")
		do("", "users", "add", "bob").expect(t, exitFailed, "--password-stdin")
		do("correct horse\n", "users", "add", "b b", "--password-stdin").expect(t, exitFailed, "letters, digits")
		var users []userJSON
		unmarshal(t, do("", "users", "list", "--json").expect(t, exitOK).stdout, &users)
		if len(users) != 1 || users[0].Name != "ada" || users[0].Created.IsZero() {
			t.Fatalf("users are %+v", users)
		}

		do("", "sessions", "list").expect(t, exitOK, "HANDLE")
		do("", "sessions", "list", "--user", "ada").expect(t, exitOK)
		do("", "sessions", "list", "--user", "nobody").expect(t, exitFailed, `user "nobody"`)
		login(t, server, "4712", "twin")
		login(t, server, "4713", "twin")
		do("", "sessions", "list", "--user", "twin").expect(t, exitFailed, `several users are called "twin"`)
		do("", "sessions", "revoke", "--user", "4712").expect(t, exitOK, "ended 1 sessions of 4712")
		do("", "sessions", "revoke", "--user", "twin").expect(t, exitOK, "ended 1 sessions of twin")
		first, second := login(t, server, users[0].ID, "ada"), login(t, server, users[0].ID, "ada")
		foreign := login(t, server, "4711", "")
		for _, user := range []string{"ada", "ADA", users[0].ID} {
			out := do("", "sessions", "list", "--user", user).expect(t, exitOK, first.Handle(), second.Handle(), "192.0.2.1").stdout
			if strings.Contains(out, foreign.Handle()) || strings.Contains(out, "\x1b") {
				t.Errorf("list of %s:\n%q", user, out)
			}
		}
		var list []sessionJSON
		unmarshal(t, do("", "sessions", "list", "--json").expect(t, exitOK).stdout, &list)
		if len(list) != 3 {
			t.Errorf("sessions are %+v", list)
		}

		do("", "sessions", "show", first.Handle()).expect(t, exitOK, "ada", "192.0.2.1", "chat.name", `"Countess"`)
		var shown sessionJSON
		out := do("", "sessions", "show", first.Handle(), "--json").expect(t, exitOK)
		unmarshal(t, out.stdout, &shown)
		if shown.User != users[0].ID || shown.UserName != "ada" || string(shown.Values["chat.name"]) != `"Countess"` {
			t.Errorf("shown is %+v", shown)
		}
		if strings.Contains(out.stdout, first.ID()) {
			t.Error("the session's ID is shown")
		}
		for _, handle := range []string{"aaaaaaaaaaaaaaaaaaaaaaaaaa", "nonsense"} {
			do("", "sessions", "show", handle).expect(t, exitFailed, "no session with the handle")
			do("", "sessions", "revoke", handle).expect(t, exitFailed, "no session with the handle")
		}

		do("", "sessions", "revoke", first.Handle()).expect(t, exitOK, "ended "+first.Handle())
		do("", "sessions", "show", first.Handle()).expect(t, exitFailed)
		do("", "sessions", "revoke", "--user", "4711").expect(t, exitOK, "ended 1 sessions")
		do("", "sessions", "revoke", "--user", "4711").expect(t, exitFailed, `user "4711"`)
		do("", "users", "remove", "ADA").expect(t, exitOK, "removed ada and ended 1 of its sessions")
		do("", "users", "remove", "ada").expect(t, exitFailed, `no account "ada"`)
		unmarshal(t, do("", "sessions", "list", "--json").expect(t, exitOK).stdout, &list)
		if len(list) != 0 {
			t.Errorf("sessions are %+v", list)
		}
	})
}

func TestRedisAway(t *testing.T) {
	command(t, "", nil, "users", "list", "--redis", "redis://127.0.0.1:1").expect(t, exitFailed, "redis cannot be reached")
	// The form of the whole URL is redisconn's to judge.
	out := command(t, "", nil, "users", "list", "--redis", "redis://:secret@host:port/0").expect(t, exitUsage, "--redis: redis: ")
	if strings.Contains(out.stderr, "secret") {
		t.Errorf("the password is shown: %s", out.stderr)
	}
}

func unmarshal(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
