package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A replica with many bound sockets and nothing to do leaves Redis alone: sessions are checked by the batch.
func TestIdleReplicaIsQuiet(t *testing.T) {
	t.Parallel()
	const documents = 20
	server := redistest.Start(t)
	app := startStockApp(t, server.URL(), "json")
	r := startReplica(t, settings{redis: server.URL(), more: "session: {serializer: json}\n"})
	var socks []*socket
	for i := range sizes.idleSockets {
		socks = append(socks, visitor(t, app, fmt.Sprint("u", i)).authenticated(r.url, fmt.Sprint("idle", i%documents)))
	}
	rdb := server.Client(t)
	calls, list := idleCommands(t, rdb)
	t.Logf("%d sockets of as many sessions, idle for %d s: %d Redis commands, %.1f a second: %s",
		len(socks), sizes.idleSeconds, calls, float64(calls)/float64(sizes.idleSeconds), list)
	if calls >= 5*sizes.idleSeconds {
		t.Error("that is not quiet")
	}

	for _, sock := range socks {
		sock.send(map[string]any{"type": "join_document"})
		sock.want("joined_document")
	}
	calls, list = idleCommands(t, rdb)
	t.Logf("joined in %d documents: %d Redis commands, %.1f a second, those inside of scripts too: %s",
		documents, calls, float64(calls)/float64(sizes.idleSeconds), list)

	for _, sock := range socks { // all still there, and still bound
		select {
		case c := <-sock.closed:
			t.Fatalf("a socket was closed while it was idle: %d %q", c.Code, c.Text)
		default:
		}
	}
	if code := r.adminJSON(http.MethodDelete, "users/u0/sessions", nil, nil); code/100 != 2 {
		t.Errorf("revoking a user's sessions: %d", code)
	}
	socks[0].wantClose(4401, "revoked")
}

// idleCommands waits until the replica has done what there was to do, and then counts what it does all the same.
func idleCommands(t *testing.T, rdb *redis.Client) (calls int, list string) {
	t.Helper()
	for last, quiet := total(commandCalls(t, rdb)), 0; quiet < 3; quiet++ {
		wait(t, time.Second)
		now := total(commandCalls(t, rdb))
		if now-last > 30 {
			quiet = 0
		}
		last = now
	}
	before := commandCalls(t, rdb)
	wait(t, time.Duration(sizes.idleSeconds)*time.Second)
	after := commandCalls(t, rdb)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if n := after[name] - before[name]; n > 0 {
			names = append(names, fmt.Sprintf("%s %d", name, n))
		}
	}
	return total(after) - total(before), strings.Join(names, ", ")
}

// commandCalls counts the commands that Redis has run, those of scripts too, but for the counting itself.
func commandCalls(t *testing.T, rdb *redis.Client) map[string]int {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.SplitSeq(info, "\r\n") {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		number, _, _ := strings.Cut(rest, ",")
		if calls[name], err = strconv.Atoi(number); err != nil {
			t.Fatal(err)
		}
	}
	return calls
}

func total(calls map[string]int) int {
	sum := 0
	for _, n := range calls {
		sum += n
	}
	return sum
}
