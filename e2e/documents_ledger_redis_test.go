package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// redisLedger is a short ledger over a Redis to which something happens.
func redisLedger(t *testing.T, fleet *fleet, name string) (*ledger, *person) {
	t.Helper()
	ada := newPerson(t)
	ada.register(fleet.anywhere(0), "ada"+name)
	l := &ledger{
		fleet: fleet, seed: rand.Uint64(), name: name,
		clients: 4, documents: 2, operations: documentSizes.operations, lasting: documentSizes.lasting,
	}
	t.Logf("seed %d", l.seed)
	l.begin(t, ada)
	return l, ada
}

// lives returns how many epochs the followers saw at most.
func (l *ledger) lives() int {
	most := 0
	for _, f := range l.followers {
		most = max(most, len(f.epochs))
	}
	return most
}

// A Redis that syncs each write to its disk dies under load: nothing that was acknowledged is lost, and nobody has to
// start over.
func TestLedgerRedisKilled(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	l, ada := redisLedger(t, startFleet(t, redis), "always")
	kill := func() { redis.Kill(); redis.Restart() }
	l.whileWorking(t, kill, kill)
	if lost := l.check(t, ada); lost > 0 || l.lives() > 1 {
		t.Errorf("%d acknowledged operations are lost, %d epochs", lost, l.lives())
	}
}

// One that syncs every second may lose the last of them. Nobody can know, so a new epoch begins, and everybody ends
// with the same log. TestLedger's rules hold in each epoch.
func TestLedgerRedisKilledEverySecond(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "everysec")
	l, ada := redisLedger(t, startFleet(t, redis), "everysec")
	l.whileWorking(t, func() { redis.Kill(); redis.Restart() })
	lost := l.check(t, ada)
	if l.lives() != 2 {
		t.Errorf("%d epochs", l.lives())
	}
	t.Logf("%d acknowledged operations lost", lost)
}

// Documents' keys are deleted under load: a new epoch, and everybody converges.
func TestLedgerKeysDeleted(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	l, ada := redisLedger(t, startFleet(t, redis), "deleted")
	remove := func() {
		if n := deleteKeys(t, redis.Client(t), "tandem:*{doc:*"); n == 0 {
			t.Error("there was nothing to delete")
		}
	}
	l.whileWorking(t, remove, remove)
	lost := l.check(t, ada)
	if l.lives() < 2 {
		t.Errorf("%d epochs", l.lives())
	}
	t.Logf("%d acknowledged operations lost, %d epochs", lost, l.lives())
}

// deleteKeys deletes what matches, in one step.
func deleteKeys(t *testing.T, rdb *redis.Client, pattern string) int {
	t.Helper()
	var keys []string
	for scan := rdb.Scan(t.Context(), 0, pattern, 1000).Iterator(); scan.Next(t.Context()); {
		keys = append(keys, scan.Val())
	}
	if len(keys) == 0 {
		return 0
	}
	n, err := rdb.Del(t.Context(), keys...).Result()
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// Everything is deleted: no socket lives on without its session.
func TestEverythingDeleted(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	fleet := startFleet(t, redis)
	l, ada := redisLedger(t, fleet, "gone")
	var idle []*socket
	for i := range 3 {
		idle = append(idle, ada.open(fleet.anywhere(i), "idle"), ada.authenticated(fleet.anywhere(i), "idle"))
	}
	l.await(t, l.clients*l.operations/3)
	if err := redis.Client(t).FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, s := range idle {
		s.wantClose(4401, "gone")
	}
	err := l.followed.Wait()
	if !errors.Is(err, errEnded) || !strings.HasSuffix(err.Error(), "gone") {
		t.Errorf("followers ended with %v", err)
	}
	for _, f := range l.followers {
		if !f.ended.Load() {
			t.Errorf("%s in %s was not told", f.name, f.document)
		}
	}
}
