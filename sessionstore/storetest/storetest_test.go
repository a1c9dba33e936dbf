package storetest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/sessions"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/storetest"
)

// Our store keeps every promise, with either serializer.
func TestSessionstore(t *testing.T) {
	for _, c := range []struct {
		name       string
		serializer sessionstore.Serializer
		cookie     string
	}{
		{"json", sessionstore.JSON(), "tandem"},
		{"gob", sessionstore.Gob(), "__Host-tandem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, s *redistest.Server) {
				cfg := sessionstore.Config{Serializer: c.serializer}
				storetest.Run(t, ours(t, s, cfg, sessionstore.StoreConfig{Cookie: c.cookie}))
			})
		})
	}
}

// brokenByRedisstore is what redisstore/v9.0.0 breaks, whatever Redis it runs
// on. docs/STORE.md says how.
var brokenByRedisstore = []string{
	"unknown-id", "malformed-id", "renewal-race", "renewal-twice",
	"concurrent-changes", "concurrent-replicas", "deletion", "unchanged-save", "empty-session", "client-gone",
	"late-save", "late-save-replicas", "logout-race",
	"outage-kept", "undecodable-kept",
	"cookie-attributes", "browser-session", "remember-me",
}

func TestRedisstore(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		wantBroken(t, storetest.Check(t.Context(), stock(t, s, nil)), brokenByRedisstore...)
	})
}

// Options can give redisstore's cookie its attributes, and nothing else.
func TestRedisstoreWithOptions(t *testing.T) {
	options := sessions.Options{Path: "/", MaxAge: 86400, HttpOnly: true, Secure: true, SameSite: 2}
	want := slices.DeleteFunc(slices.Clone(brokenByRedisstore), func(id string) bool { return id == "cookie-attributes" })
	wantBroken(t, storetest.Check(t.Context(), stock(t, redistest.Mini(t), &options)), want...)
}

func wantBroken(t *testing.T, r storetest.Report, want ...string) {
	t.Helper()
	if got := r.Broken(); !slices.Equal(got, want) {
		t.Errorf("broken: %v\nwant:   %v\n%v", got, want, r)
	}
}

// Promises that need what the harness lacks are neither held nor broken.
func TestNotApplicable(t *testing.T) {
	h := stock(t, redistest.Mini(t), nil)
	report := storetest.Check(t.Context(), storetest.Harness{Store: h.Store})
	var skipped []string
	for _, r := range report {
		if r.Verdict == storetest.NotApplicable {
			skipped = append(skipped, r.ID)
			if !strings.HasPrefix(r.Detail, "the harness has no ") {
				t.Errorf("%s: %s", r.ID, r.Detail)
			}
		}
	}
	want := []string{
		"renewal", "renewal-race", "renewal-twice", "concurrent-replicas", "late-save-replicas", "logout-race",
		"outage-error", "outage-kept", "undecodable-error", "undecodable-kept",
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("not applicable: %v\nwant:           %v", skipped, want)
	}
}

// A store whose cookies have a limited age by default sets them again at each
// save, and the life that one session's cookie was given is not remembered.
func TestSessionstoreWithAge(t *testing.T) {
	face := sessionstore.StoreConfig{Cookie: "session", Options: sessions.Options{MaxAge: 3600}}
	wantBroken(t, storetest.Check(t.Context(), ours(t, redistest.Mini(t), sessionstore.Config{}, face)), "remember-me")
}
