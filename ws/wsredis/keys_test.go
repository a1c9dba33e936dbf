package wsredis_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
	"github.com/seed-6230208e/tandem/ws/wstest"
)

// keyTable is the table of keys.go. TTLs are what is left right after a write.
var keyTable = []struct {
	name     string // regular expression
	kind     string
	min, max time.Duration
}{
	{`tandem:doc:\{doc:full\}`, "hash", 29 * 24 * time.Hour, 30 * 24 * time.Hour},
	{`tandem:doc:\{doc:empty\}`, "hash", 23 * time.Hour, 24 * time.Hour},
	{`tandem:log:\{doc:full\}`, "stream", 29 * 24 * time.Hour, 30 * 24 * time.Hour},
	{`tandem:snapshot:\{doc:full\}`, "hash", 29 * 24 * time.Hour, 30 * 24 * time.Hour},
	{`tandem:seen:\{doc:full\}:[012]`, "hash", 35 * time.Hour, 36 * time.Hour},
	{`tandem:presence:\{doc:full\}`, "hash", 59 * time.Minute, time.Hour},
	{`tandem:presence-count:\{doc:full\}`, "string", 59 * time.Minute, time.Hour},
	{`tandem:places:\{places\}`, "set", 59 * time.Minute, time.Hour},
	{`tandem:places:\{places\}:a\.[a-z2-7]{10}`, "hash", time.Millisecond, 3 * tick},
	{`tandem:replica:\{a\.[a-z2-7]{10}\}`, "string", time.Millisecond, 3 * tick},
}

func TestKeyTable(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		a, admin := start(t, "a", s.Addr()), s.Client(t)
		subscribe(t, a, "full")
		var ack ws.Ack
		for i := range 3 {
			var err error
			ack, err = a.Append(ctx, "full", ws.Operation{ID: fmt.Sprint(i), UserID: "7"}, ws.Position{})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := a.KeepSnapshot(ctx, "full", ack.Position, json.RawMessage(`{}`)); err != nil {
			t.Fatal(err)
		}
		if err := a.Announce(ctx, "full", joined("c")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.History(ctx, "empty", nil, 1); err != nil {
			t.Fatal(err)
		}
		if err := runPlaces(t, a).Take(ctx, ws.Place{Session: "s", User: "7"}, ws.PlaceLimits{PerSession: 1}); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, key := range allKeys(t, admin) {
			found[checkKey(t, admin, key)] = true
		}
		for _, row := range keyTable {
			if !found[row.name] {
				t.Errorf("no key %s", row.name)
			}
		}
	})
}

// checkKey returns the row of keyTable that key belongs to.
func checkKey(t *testing.T, client *redis.Client, key string) string {
	t.Helper()
	ctx := context.Background()
	for _, row := range keyTable {
		if !regexp.MustCompile("^" + row.name + "$").MatchString(key) {
			continue
		}
		if kind := client.Type(ctx, key).Val(); kind != row.kind {
			t.Errorf("%s is a %s", key, kind)
		}
		if ttl := client.PTTL(ctx, key).Val(); ttl < row.min || ttl > row.max {
			t.Errorf("%s lives for %s", key, ttl)
		}
		return row.name
	}
	t.Errorf("%s is not in the table", key)
	return ""
}

// A log that was lost alone takes up after the snapshot, and keeps a TTL.
func TestLostStream(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, admin := start(t, "a", s.Addr()), s.Client(t)
		for i := range 5 {
			appendOne(t, a, fmt.Sprint(i))
		}
		last := appendOne(t, a, "last")
		at := ws.Position{Epoch: last.Epoch, Seq: 4}
		if err := a.KeepSnapshot(t.Context(), doc, at, json.RawMessage(`"four"`)); err != nil {
			t.Fatal(err)
		}
		remove(t, admin, "tandem:log:{doc:d}")
		h, err := a.History(t.Context(), doc, &last.Position, 1<<20)
		if err != nil || h.Epoch == last.Epoch || h.Head != 4 || string(h.Snapshot) != `"four"` || h.Recovered {
			t.Fatalf("%+v, %v", h, err)
		}
		again := appendOne(t, a, "last")
		if again.Seq != 5 || again.Duplicate || again.Epoch != h.Epoch {
			t.Errorf("%+v", again)
		}
		if ttl := admin.TTL(t.Context(), "tandem:log:{doc:d}").Val(); ttl <= 0 {
			t.Errorf("log lives for %s", ttl)
		}
	})
}

// A small log is as long as it should be, not longer by what Redis trims at
// once: who is further behind is told so.
func TestFewAreKeptExactly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		b, err := wsredis.New(wsredis.Config{Client: s.Client(t), Replica: "a", KeepOperations: 10})
		if err != nil {
			t.Fatal(err)
		}
		var last ws.Ack
		for i := range 25 {
			if last, err = b.Append(t.Context(), doc, ws.Operation{ID: fmt.Sprint(i), UserID: "7"}, ws.Position{}); err != nil {
				t.Fatal(err)
			}
		}
		for since, want := range map[uint64]bool{14: false, 15: true} {
			h, err := b.History(t.Context(), doc, &ws.Position{Epoch: last.Epoch, Seq: since}, 1<<20)
			if err != nil || h.Recovered != want || len(h.Entries) != 10 {
				t.Errorf("since %d: recovered %v with %d entries, %v", since, h.Recovered, len(h.Entries), err)
			}
		}
	})
}

// The hash was lost alone: the stream says where the log ends.
func TestLostHash(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, admin := start(t, "a", s.Addr()), s.Client(t)
		appendOne(t, a, "1")
		before := appendOne(t, a, "2")
		remove(t, admin, "tandem:doc:{doc:d}")
		after := appendOne(t, a, "3")
		if after.Epoch == before.Epoch || after.Seq != 3 {
			t.Errorf("%+v after %+v", after, before)
		}
		if again := appendOne(t, a, "2"); !again.Duplicate || again.Seq != 2 {
			t.Errorf("%+v", again)
		}
	})
}

// An announcement that never arrived is found by the tick.
func TestMissedAnnouncement(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		a, admin := start(t, "a", s.Addr()), s.Client(t)
		onA := subscribe(t, a, doc)
		onA.Wait(t, "an operation", has(appendOne(t, a, "1").Position))
		ctx := context.Background()
		if _, err := a.History(ctx, doc, nil, 1); err != nil {
			t.Fatal(err)
		}
		// Somebody else's operation, without its announcement.
		if err := admin.XAdd(ctx, &redis.XAddArgs{
			Stream: "tandem:log:{doc:d}", ID: "2-0", Values: []string{"f", `"id":"2"}`},
		}).Err(); err != nil {
			t.Fatal(err)
		}
		if err := admin.HSet(ctx, "tandem:doc:{doc:d}", "seq", 2).Err(); err != nil {
			t.Fatal(err)
		}
		onA.Wait(t, "a gap", gap)
	})
}

// The keys of a document live for as long as somebody is in it.
func TestLifeIsProlonged(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx, admin := t.Context(), s.Client(t)
		a := startWith(t, s.Addr(), wsredis.Config{Replica: "a", Tick: tick, Retention: 4 * time.Second})
		subscribe(t, a, doc)
		announce(t, a, joined("c"))
		appendOne(t, a, "1")
		for key, life := range map[string]time.Duration{
			"tandem:presence:{doc:d}": time.Minute, "tandem:doc:{doc:d}": 3 * time.Second, "tandem:log:{doc:d}": 3 * time.Second,
		} {
			if err := admin.Expire(ctx, key, life).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, key+" to live longer", func() bool { return admin.PTTL(ctx, key).Val() > life })
		}
	})
}

// Every script touches one slot only. Two nodes share the slots.
func TestCluster(t *testing.T) {
	nodes := []*redistest.Server{
		redistest.Start(t, "--cluster-enabled", "yes"), redistest.Start(t, "--cluster-enabled", "yes"),
	}
	ctx := context.Background()
	first, second := nodes[0].Client(t), nodes[1].Client(t)
	for _, err := range []error{
		first.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, 8191).Err(),
		second.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 8192, 16383).Err(),
		second.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", 2).Err(),
		first.ClusterMeet(ctx, "127.0.0.1", port(nodes[1])).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the cluster", func() bool {
		one, _ := first.ClusterInfo(ctx).Result()
		two, _ := second.ClusterInfo(ctx).Result()
		ok := regexp.MustCompile("cluster_state:ok[^$]*cluster_slots_ok:16384")
		return ok.MatchString(one) && ok.MatchString(two)
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{nodes[0].Addr(), nodes[1].Addr()}, ContextTimeoutEnabled: true,
	})
	wstest.Contract(t, func(t *testing.T) wstest.Pair {
		a, stop := startOn(t, "a", client)
		b, _ := startOn(t, "b", client)
		return wstest.Pair{A: a, B: b, Keep: keep,
			// A clean end: the other replica hears the same.
			KillA: stop,
			LoseLog: func(document string) {
				err := client.Del(ctx, "tandem:doc:{doc:"+document+"}", "tandem:log:{doc:"+document+"}",
					"tandem:snapshot:{doc:"+document+"}").Err()
				if err != nil {
					t.Fatal(err)
				}
			},
		}
	})
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func port(s *redistest.Server) string {
	return regexp.MustCompile(`\d+$`).FindString(s.Addr())
}

// startOn runs a replica on a client that the caller closes.
func startOn(t testing.TB, name string, client redis.UniversalClient) (*wsredis.Backplane, func()) {
	t.Helper()
	b, err := wsredis.New(wsredis.Config{Client: client, Replica: name, KeepOperations: keep, Tick: calm})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return b, stop
}
