package sessionstore_test

import (
	"context"
	"flag"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// Whatever several stores, pages, sockets and an application that writes
// blindly do, and in whatever order: no write of ours is lost, the last one of
// an attribute counts, what has ended stays ended and says why, a handle never
// changes, and lists show what lives.

// On a real Redis time cannot be moved; sessions expire as if it had been.
func TestAnyOrderOnRedis(t *testing.T) {
	srv := redistest.Start(t)
	times(t, 12*propertyFactor)
	rapid.Check(t, func(rt *rapid.T) {
		dial := func() redis.UniversalClient {
			return redis.NewClient(&redis.Options{Addr: srv.Addr()})
		}
		play(rt, t, dial, nil)
	})
}

// In a bubble time passes at will, also for miniredis.
func TestAnyOrderAndTime(t *testing.T) {
	times(t, 40*propertyFactor)
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(quiet{t}, func(rt *rapid.T) {
			mini := miniredis.NewMiniRedis()
			mini.ClockTTL(true)
			defer func() {
				synctest.Wait() // who dials while it closes races with it
				mini.Close()
			}()
			dial := func() redis.UniversalClient {
				return redis.NewClient(&redis.Options{
					Dialer:                   func(context.Context, string, string) (net.Conn, error) { return mini.Dial() },
					MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}, // it looks names up
				})
			}
			play(rt, t, dial, time.Sleep)
		})
	})
}

// quiet hides the deadline of a test, for which nobody may ask in a bubble.
type quiet struct{ rapid.TB }

// times sets how often rapid draws another order, and that it draws the same
// ones each time: what fails in CI is then the change's doing. `make fuzz`
// draws others. Numbers that somebody has asked for stay.
func times(t *testing.T, n int) {
	t.Helper()
	asked := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { asked[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": strconv.Itoa(n), "rapid.seed": "20260101"} {
		if asked[name] {
			continue
		}
		f := flag.Lookup(name)
		before := f.Value.String()
		must(t, f.Value.Set(value))
		t.Cleanup(func() { _ = f.Value.Set(before) })
	}
}

// play is one order of events.
func play(rt *rapid.T, t *testing.T, dial func() redis.UniversalClient, sleep func(time.Duration)) {
	kind := rapid.SampledFrom(serializers[:2]).Draw(rt, "serializer")
	hashed := rapid.SampledFrom([]bool{false, false, true}).Draw(rt, "hashed")
	r := rules{3 * time.Minute, 5 * time.Minute, 30 * time.Second, 10 * time.Second}
	if sleep == nil {
		r = rules{time.Hour, 2 * time.Hour, time.Minute, time.Hour} // nothing hangs on how quick the machine is
	}
	m := &machine{
		t: t, ctx: context.Background(), rdb: dial(), ours: kind.ours, rules: r, sleep: sleep,
		cfg: sessionstore.Config{
			Serializer: kind.ours, HashIDs: hashed,
			IdleTimeout: r.idle, AbsoluteTimeout: r.absolute, TouchEvery: r.touch, Grace: r.grace,
		},
	}
	defer m.rdb.Close()
	for _, key := range m.rdb.Keys(m.ctx, "*").Val() { // of the order before
		must(t, m.rdb.Del(m.ctx, key).Err())
	}
	for range 2 {
		rdb := dial()
		defer rdb.Close()
		replica := newReplica(m, rdb)
		defer replica.stop()
		m.replicas = append(m.replicas, replica)
	}
	if !hashed {
		rdb := dial()
		defer rdb.Close()
		app := newStock(t, rdb, kind.stock)
		m.stock = &app
	}
	rt.Repeat(map[string]func(*rapid.T){
		"create": m.create, "load": m.load, "load by handle": m.loadHandle, "change": m.modify, "change more": m.modify,
		"save": m.save, "save more": m.save, "update": m.update, "rotate": m.rotate, "login": m.login, "login more": m.login,
		"end": m.end, "end a user's": m.endUser, "expire": m.expire, "pass": m.pass, "touch": m.active, "lose": m.lose,
		"stock makes": m.stockMakes, "stock loads": m.stockLoads, "stock saves": m.stockSaves,
		"visit": m.visitPage, "leave": m.leavePage, "bind": m.bind, "socket writes": m.socketWrites,
		"": m.compare,
	})
	m.finish(rt)
}
