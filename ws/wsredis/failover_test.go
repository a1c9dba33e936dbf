package wsredis_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
	"github.com/seed-6230208e/tandem/ws/wsredis"
)

// stranger is a replica that has seen nothing of any document.
func stranger(t testing.TB, client redis.UniversalClient) *replica {
	t.Helper()
	b, err := wsredis.New(wsredis.Config{Client: client, Replica: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	return &replica{Backplane: b}
}

// A copy takes over that lacks operations which were acknowledged. Their
// numbers are given to others then, by replicas that never heard of the lost
// ones and long before anybody who did comes back: only a new epoch keeps them
// apart.
func TestFailoverToACopyThatIsBehind(t *testing.T) {
	master := redistest.Start(t)
	link := redistest.NewLink(t, master.Addr())
	host, port, _ := strings.Cut(link.Addr(), ":")
	standby := redistest.Start(t, "--replicaof", host+" "+port)
	var at atomic.Value
	at.Store(master.Addr())
	client := redis.NewClient(&redis.Options{
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.Load().(string))
		},
		ContextTimeoutEnabled: true, MaxRetries: -1,
	})
	defer client.Close()

	eventually(t, "the copy to follow", func() bool {
		return strings.Contains(standby.Client(t).Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	a := stranger(t, client)
	kept := appendOne(t, a, "kept")
	if n := client.Wait(t.Context(), 1, timeout).Val(); n != 1 {
		t.Fatal("not copied")
	}
	link.Cut()
	var lost ws.Ack
	for i := range 3 {
		lost = appendOne(t, a, fmt.Sprint("lost", i))
	}
	master.Kill()
	if err := standby.Client(t).Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	at.Store(standby.Addr())
	eventually(t, "the copy to answer", func() bool { return client.Ping(t.Context()).Err() == nil })

	b := stranger(t, client)
	var last ws.Ack
	for i := range 5 { // more than were lost
		last = appendOne(t, b, fmt.Sprint("after", i))
	}
	if last.Epoch == lost.Epoch || last.Seq != kept.Seq+5 {
		t.Errorf("%+v after %+v was lost", last, lost)
	}
	h, err := b.History(t.Context(), doc, &lost.Position, 1<<20)
	if err != nil || h.Recovered || len(h.Entries) != 6 {
		t.Errorf("who knows lost operations is told %+v, %v", h, err)
	}
	if again := appendOne(t, b, "kept"); !again.Duplicate || again.Seq != kept.Seq || again.Epoch != last.Epoch {
		t.Errorf("%+v, it was %+v", again, kept)
	}
}

// After a restart a document goes on in its epoch only when nothing can be
// missing.
func TestEpochAfterRestart(t *testing.T) {
	for fsync, same := range map[string]bool{"always": true, "everysec": false} {
		t.Run(fsync, func(t *testing.T) {
			s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", fsync)
			a, admin := start(t, "a", s.Addr()), s.Client(t)
			subscribe(t, a, doc)
			before := appendOne(t, a, "1")
			eventually(t, "the document's home", func() bool {
				home := admin.HGet(t.Context(), "tandem:doc:{doc:d}", "home").Val()
				return strings.HasSuffix(home, map[bool]string{true: "+", false: "-"}[same])
			})
			s.Kill()
			s.Restart()
			eventually(t, "Redis", func() bool { return admin.Ping(t.Context()).Err() == nil })
			after := appendOne(t, stranger(t, admin), "2")
			if after.Seq != before.Seq+1 || (after.Epoch == before.Epoch) != same {
				t.Errorf("%+v after %+v", after, before)
			}
		})
	}
}

// A durable Redis with a copy can be replaced by it, and the copy is behind.
func TestDurableWithACopyIsNotSafe(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	a, admin := start(t, "a", s.Addr()), s.Client(t)
	subscribe(t, a, doc)
	before := appendOne(t, a, "1")
	home := func() string { return admin.HGet(t.Context(), "tandem:doc:{doc:d}", "home").Val() }
	eventually(t, "a safe home", func() bool { return strings.HasSuffix(home(), "+") })
	host, port, _ := strings.Cut(s.Addr(), ":")
	redistest.Start(t, "--replicaof", host+" "+port)
	eventually(t, "a home with a copy", func() bool { return strings.HasSuffix(home(), "-") })
	if after := appendOne(t, a, "2"); after.Epoch != before.Epoch {
		t.Errorf("%+v after %+v, although nothing happened", after, before)
	}
}
