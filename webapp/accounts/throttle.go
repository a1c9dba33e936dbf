package accounts

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/redis/go-redis/v9"
)

// throttled returns a *ThrottledError when one of keys has had its failures
// for this window. It counts nothing: throttled attempts do not prolong the
// wait.
func (a *Accounts) throttled(ctx context.Context, keys []string) error {
	var wait time.Duration
	err := a.each(ctx, keys, func(p redis.Pipeliner, key string) *redis.Cmd {
		return throttleScript.Eval(ctx, p, []string{key}, a.cfg.Window.Milliseconds(), a.cfg.Failures)
	}, func(cmd *redis.Cmd) {
		ms, _ := cmd.Int64() // the script answers an integer, always
		wait = max(wait, time.Duration(ms)*time.Millisecond)
	})
	if err != nil {
		return err
	}
	if wait > 0 {
		return &ThrottledError{RetryAfter: wait}
	}
	return nil
}

// failed counts a failure under keys, also when the client has gone meanwhile:
// hanging up must not make guessing free.
func (a *Accounts) failed(ctx context.Context, keys []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	token := rand.Text() // sent twice by the client library it still counts once
	return a.each(ctx, keys, func(p redis.Pipeliner, key string) *redis.Cmd {
		return failScript.Eval(ctx, p, []string{key}, a.cfg.Window.Milliseconds(), a.cfg.Failures, token)
	}, func(*redis.Cmd) {})
}

// each runs one script for each key, of different slots, in one round trip.
func (a *Accounts) each(ctx context.Context, keys []string, run func(redis.Pipeliner, string) *redis.Cmd, got func(*redis.Cmd)) error {
	if len(keys) == 0 {
		return nil
	}
	cmds := make([]*redis.Cmd, len(keys))
	_, err := a.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			cmds[i] = run(p, key)
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	for _, cmd := range cmds {
		got(cmd)
	}
	return nil
}
