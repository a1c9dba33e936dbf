package sessionstore

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// onRedisAndCluster runs fn on each kind of Redis.
func onRedisAndCluster(t *testing.T, fn func(t *testing.T, rdb redis.UniversalClient)) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) { fn(t, s.Client(t)) })
	t.Run("cluster", func(t *testing.T) { fn(t, redistest.StartCluster(t, 0).Client(t)) })
}

// What leads to a bound session was lost, all of it or a part. Nobody touches
// it, and yet it is soon listed, and revoked, again.
func TestRelistBoundSessions(t *testing.T) {
	onRedisAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := watchFrom(t, rdb, Config{}, WatchConfig{VerifyEvery: 20 * time.Millisecond, RelistEvery: 20 * time.Millisecond})
		s, err := a.Login(t.Context(), nil, Login{UserID: "7", UserName: "Ann"})
		check(t, err)
		ear, _ := a.bind(t, s.ID())
		anonymous := a.open(t, "x")
		ear2, _ := a.bind(t, anonymous.ID())

		for _, lose := range []func(){
			func() { check(t, rdb.Del(t.Context(), handleKey(s.handle)).Err()) },
			func() { check(t, rdb.ZRem(t.Context(), userKey("7"), s.handle).Err()) },
			func() {
				check(t, rdb.Del(t.Context(), handleKey(s.handle)).Err())
				check(t, rdb.Del(t.Context(), userKey("7")).Err())
			},
		} {
			lose()
			until(t, "the session is listed again", func() bool {
				infos, err := a.List(t.Context(), "7")
				return err == nil && len(infos) == 1 && infos[0].Handle == s.handle && infos[0].UserName == "Ann" &&
					time.Since(infos[0].LastSeen) < time.Hour
			})
		}
		n, err := a.EndUser(t.Context(), "7", ReasonRevoked, "")
		if err != nil || n != 1 {
			t.Fatalf("%d sessions revoked, %v", n, err)
		}
		ear.eventually(t, "ended revoked")

		check(t, rdb.Del(t.Context(), handleKey(anonymous.handle)).Err())
		until(t, "the record is back", func() bool {
			return a.EndHandle(t.Context(), anonymous.handle, ReasonRevoked) == nil
		})
		ear2.eventually(t, "ended revoked")
	})
}

// before is a hook that does something, once, right before a script runs.
type before struct {
	redis.Hook
	script *redis.Script
	do     func()
}

func (b *before) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}
func (b *before) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b *before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if args := cmds[0].Args(); b.do != nil && len(args) > 1 && args[1] == b.script.Hash() {
			do := b.do
			b.do = nil
			do()
		}
		return next(ctx, cmds)
	}
}

// A logout comes between finding a session unlisted and listing it.
func TestRelistNothingThatEnds(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		rdb := srv.Client(t)
		f, err := New(rdb, Config{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		check(t, rdb.Del(t.Context(), handleKey(s.handle), userKey("7")).Err())
		rdb.AddHook(&before{script: recordScript, do: func() { check(t, f.End(t.Context(), s.ID(), ReasonLogout)) }})

		if _, err := f.relist(t.Context(), []*Snapshot{s.Snapshot()}); err != nil {
			t.Fatal(err)
		}
		if n := rdb.Exists(t.Context(), handleKey(s.handle), userKey("7")).Val(); n != 0 {
			t.Errorf("%d keys lead to a session that has ended", n)
		}
		if n, err := f.relist(t.Context(), []*Snapshot{s.Snapshot()}); n != 0 || err != nil { // known to have ended
			t.Errorf("%d listed, %v", n, err)
		}
	})
}

// A user logs in between: what is written is the newest state.
func TestRelistAfterLogin(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		rdb := srv.Client(t)
		f, err := New(rdb, Config{})
		check(t, err)
		s := f.New()
		check(t, s.Save(t.Context()))
		before := s.Snapshot()
		_, err = f.Login(t.Context(), s, Login{UserID: "7"})
		check(t, err)
		check(t, rdb.Del(t.Context(), handleKey(before.handle), userKey("7")).Err())
		_, err = f.relist(t.Context(), []*Snapshot{before})
		check(t, err)
		if infos, err := f.List(t.Context(), "7"); err != nil || len(infos) != 1 {
			t.Errorf("%d listed, %v", len(infos), err)
		}
	})
}
