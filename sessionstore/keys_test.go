package sessionstore_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// shapes turn a key into the form in which the table in keys.go names it.
var shapes = []struct {
	found *regexp.Regexp
	named string
}{
	{regexp.MustCompile(`^session:(?:[A-Z2-7]{103}|[0-9a-f]{64})$`), "P<ref>"},
	{regexp.MustCompile(`^tandem:(end|next|sid|hold):\{session:(?:[A-Z2-7]{103}|[0-9a-f]{64})\}$`), "tandem:$1:{P<ref>}"},
	{regexp.MustCompile(`^tandem:wrote:\{session:(?:[A-Z2-7]{103}|[0-9a-f]{64})\}:\w{26}$`), "tandem:wrote:{P<ref>}:<token>"},
	{regexp.MustCompile(`^tandem:handle:\{[a-z2-7]{26}\}$`), "tandem:handle:{<handle>}"},
	{regexp.MustCompile(`^tandem:user:\{[\w-]+\}$`), "tandem:user:{<b64url(user)>}"},
	{regexp.MustCompile(`^tandem:ticket:\{[0-9a-f]{64}\}$`), "tandem:ticket:{<sha256>}"},
	{regexp.MustCompile(`^tandem:ticket:\{[0-9a-f]{64}\}:[A-Z2-7]{26}$`), "tandem:ticket:{<sha256>}:<token>"},
}

// Every key that is found in Redis after a run of everything is in the table,
// with its type, and has a TTL; and every key of the table is found.
func TestKeyTable(t *testing.T) {
	types := keyTable(t)
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		everything(t, rdb, sessionstore.Config{})
		everything(t, rdb, guarded(t, sessionstore.Config{}))
		seen := map[string]bool{}
		for _, key := range allKeys(t, rdb) {
			name := ""
			for _, s := range shapes {
				if s.found.MatchString(key) {
					name = s.found.ReplaceAllString(key, s.named)
				}
			}
			seen[name] = true
			want, ok := types[name]
			if !ok {
				t.Errorf("%s is in no table", key)
				continue
			}
			if got := rdb.Type(t.Context(), key).Val(); got != want {
				t.Errorf("%s is a %s, the table says %s", key, got, want)
			}
			if ttl := rdb.PTTL(t.Context(), key).Val(); ttl <= 0 {
				t.Errorf("%s lives for ever", key)
			}
		}
		for name := range types {
			if !seen[name] {
				t.Errorf("%s is in the table, and was never written", name)
			}
		}
	})
}

// keyTable reads the types in the table in keys.go.
func keyTable(t *testing.T) map[string]string {
	t.Helper()
	source, err := os.ReadFile("keys.go")
	must(t, err)
	row := regexp.MustCompile(`(?m)^//\t((?:P<|tandem:)\S+) +(string|hash|zset) `)
	types := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(source), -1) {
		types[m[1]] = m[2]
	}
	if len(types) != 10 {
		t.Fatalf("%d rows in the table of keys.go: %v", len(types), types)
	}
	return types
}

// everything writes every kind of key.
func everything(t *testing.T, rdb redis.UniversalClient, cfg sessionstore.Config) {
	t.Helper()
	ctx := t.Context()
	f := factory(t, rdb, cfg)
	adopted := created(t, f, "user.id", "7")
	if !cfg.HashIDs {
		adopted = loaded(t, f, newStock(t, rdb, plainJSON{}).made("user.id", "7"))
	}
	set(t, adopted, "a", 1)
	must(t, adopted.Save(ctx))
	must(t, adopted.Rotate(ctx, nil))
	must(t, f.Touch(ctx, adopted.Snapshot()))

	s, err := f.Login(ctx, created(t, f), ann)
	must(t, err)
	_, _, err = f.IssueTicket(ctx, s)
	must(t, err)
	taken, _, err := f.IssueTicket(ctx, s)
	must(t, err)
	must(t, errOf(f.RedeemTicket(ctx, taken)))
	must(t, s.Rotate(ctx, nil))
	sessionstore.AbandonRotation(t, rdb, f, s, time.Minute) // a moment would be over before all keys are looked at
	other, err := f.Login(ctx, nil, bob)
	must(t, err)
	must(t, f.EndHandle(ctx, other.Handle(), sessionstore.ReasonRevoked))
	wantErr(t, f.End(ctx, sessionstore.NewID(), sessionstore.ReasonRevoked), sessionstore.ErrNotFound)
	_, err = f.List(ctx, "")
	must(t, err)
}

func allKeys(t *testing.T, rdb redis.UniversalClient) []string {
	t.Helper()
	var mu sync.Mutex
	var keys []string
	scan := func(ctx context.Context, node *redis.Client) error {
		it := node.Scan(ctx, 0, "*", 100).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			keys = append(keys, it.Val())
			mu.Unlock()
		}
		return it.Err()
	}
	if c, ok := rdb.(*redis.ClusterClient); ok {
		must(t, c.ForEachMaster(t.Context(), scan))
	} else {
		must(t, scan(t.Context(), rdb.(*redis.Client)))
	}
	return keys
}

// No line that is logged, and no label, holds an ID.
func TestIDsStaySecret(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		var log strings.Builder
		f := factory(t, rdb, sessionstore.Config{Logger: textLogger(&log)})
		s := created(t, f, "user.id", "7")
		ids := []string{s.ID()}
		must(t, s.Rotate(ctx, nil))
		ids = append(ids, s.ID())
		s, err := f.Login(ctx, s, bob)
		must(t, err)
		ids = append(ids, s.ID(), sessionstore.NewID(), "made up by a client")
		must(t, f.End(ctx, s.ID(), sessionstore.ReasonLogout))
		for _, id := range ids {
			_, _ = f.Load(ctx, id)
			if strings.Contains(log.String(), id) {
				t.Fatalf("an ID is in the log:\n%s", log.String())
			}
		}
		for _, event := range []string{"session created", "session rotated", "login", "session ended", "unknown session ID presented"} {
			if !strings.Contains(log.String(), event) {
				t.Errorf("%q is not in the log:\n%s", event, log.String())
			}
		}
	})
}
