package sessionstore

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// vanishing is a hook under which a session goes, once, between the two
// answers that a load reads.
type vanishing struct {
	before
	gone bool
}

func (v *vanishing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if ttl, ok := cmds[len(cmds)-1].(*redis.DurationCmd); ok && !v.gone {
			v.gone = true
			v.do()
			ttl.SetVal(noKey)
		}
		return err
	}
}

// A session that goes while it is read is absent, and not one whose time is
// over: those who are bound to it would be told that it has expired.
func TestGoneWhileItIsRead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		rdb := srv.Client(t)
		f, err := New(rdb, Config{})
		check(t, err)
		s, err := f.Login(t.Context(), nil, Login{UserID: "7"})
		check(t, err)
		hook := &vanishing{before: before{do: func() { check(t, srv.Client(t).Del(t.Context(), f.valueKey(s.ref)).Err()) }}}
		rdb.AddHook(hook)
		if _, err := f.Load(t.Context(), s.ID()); !errors.Is(err, ErrNotFound) || !hook.gone {
			t.Errorf("%v, gone: %t", err, hook.gone)
		}
	})
}
