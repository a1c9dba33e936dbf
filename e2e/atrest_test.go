package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// sealKey is a key file's line.
func sealKey(letter string) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(letter), 32)) + "\n"
}

// TestAtRest runs two replicas that keep neither IDs nor values readable in Redis, and changes their keys on the way.
func TestAtRest(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	keys := filepath.Join(t.TempDir(), "seal.keys")
	writeFile(t, keys, sealKey("a"))
	guarded := settings{redis: redis.URL(), more: fmt.Sprintf("session: {hash_ids: true, seal_keys_file: %s, verify_every: 1s}\n", keys)}
	a, b := startReplica(t, guarded), startReplica(t, guarded)

	ada := newPerson(t)
	ada.register(a.url, "ada")
	socket := ada.open(b.url, "at-rest")
	socket.send(map[string]any{"type": "session_set", "id": "s1", "set": map[string]any{"chat.name": "Countess"}})
	socket.want("session")
	if got := ada.session(a.url).Values["chat.name"]; got != "Countess" {
		t.Errorf("chat.name is %v", got)
	}

	// The ID is replaced under the open socket.
	ada.login(a.url, "ada")
	socket.want("renew")

	client := redis.Client(t)
	found := 0
	for _, key := range client.Keys(t.Context(), "session:*").Val() {
		found++
		if value := client.Get(t.Context(), key).Val(); sessionID.MatchString(key) || strings.Contains(value, "Countess") || !strings.Contains(value, "sealed") {
			t.Errorf("Redis holds %s: %q", key, value)
		}
	}
	if found != 1 {
		t.Errorf("%d values", found)
	}

	// Both get the new key, then it seals, then the old one goes.
	for _, lines := range []string{sealKey("a") + sealKey("b"), sealKey("b") + sealKey("a"), sealKey("b")} {
		writeFile(t, keys, lines)
		for _, r := range []*replica{a, b} {
			before := strings.Count(r.out.String(), "reloaded")
			r.signal(syscall.SIGHUP)
			eventually(t, 10*time.Second, func() error {
				if strings.Count(r.out.String(), "reloaded") == before {
					return fmt.Errorf("no word of a reload")
				}
				return nil
			})
		}
		if r := ada.sendJSON(http.MethodPatch, b.url+"/api/session", map[string]any{"set": map[string]any{"chat.round": lines[:4]}}); r.status != http.StatusOK {
			t.Fatalf("PATCH: %d %s", r.status, r.body)
		}
		if s := ada.session(a.url); s.User == nil || s.Values["chat.round"] != lines[:4] {
			t.Fatalf("the session is %+v", s)
		}
	}

	// The command line reads it, by the same file, and ends it.
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	writeFile(t, file, fmt.Sprintf("redis: %q\n%s", redis.URL(), guarded.more))
	handle := ada.session(a.url).Handle
	if code, out := runTandem(t, "", "sessions", "show", handle, "--config", file); code != 0 || !strings.Contains(out, "Countess") {
		t.Errorf("sessions show: %d %s", code, out)
	}
	if code, out := runTandem(t, "", "sessions", "revoke", handle, "--config", file); code != 0 {
		t.Errorf("sessions revoke: %d %s", code, out)
	}
	socket.wantClose(4401, "revoked")
	if ada.session(b.url).User != nil {
		t.Error("a revoked session lives on")
	}
}
