package wsredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
	"github.com/seed-6230208e/tandem/ws"
)

var (
	//go:embed lua/home.lua
	homeLua string
	//go:embed lua/common.lua
	commonLua string
	//go:embed lua/append.lua
	appendLua string
	//go:embed lua/history.lua
	historyLua string
	//go:embed lua/snapshot.lua
	snapshotLua string
	//go:embed lua/check.lua
	checkLua string
	//go:embed lua/presence_common.lua
	presenceLua string
	//go:embed lua/announce.lua
	announceLua string
	//go:embed lua/reap.lua
	reapLua string

	appendScript   = redis.NewScript(homeLua + commonLua + appendLua)
	historyScript  = redis.NewScript(homeLua + commonLua + historyLua)
	snapshotScript = redis.NewScript(homeLua + commonLua + snapshotLua)
	checkScript    = redis.NewScript(homeLua + commonLua + checkLua)
	announceScript = redis.NewScript(presenceLua + announceLua)
	reapScript     = redis.NewScript(presenceLua + reapLua)
)

// call is one run of a script.
type call struct {
	keys []string
	args []any
}

// runAll runs script for every call in as few round trips as can be. The
// results are in the order of calls; each has its own error.
func runAll(ctx context.Context, client redis.UniversalClient, script *redis.Script, calls []call) []*redis.Cmd {
	results := make([]*redis.Cmd, len(calls))
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, c := range calls {
			results[i] = p.EvalSha(ctx, script.Hash(), c.keys, c.args...)
		}
		return nil
	})
	for i, c := range calls {
		switch result := results[i]; {
		case redis.HasErrorPrefix(result.Err(), "NOSCRIPT"):
			// The first of these loads it, for its node.
			results[i] = script.Run(ctx, client, c.keys, c.args...)
		case err != nil && result.Err() == nil && result.Val() == nil:
			result.SetErr(err) // refused before it was sent
		}
	}
	return results
}

// runTogether runs a script in a round trip that is shared with others.
func runTogether(ctx context.Context, v *redisconn.Convoy, client redis.UniversalClient, script *redis.Script, c call) *redis.Cmd {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	args = append(args, "evalsha", script.Hash(), len(c.keys))
	for _, key := range c.keys {
		args = append(args, key)
	}
	cmd := redis.NewCmd(ctx, append(args, c.args...)...)
	if len(c.keys) > 0 {
		cmd.SetFirstKeyPos(3)
	}
	if err := v.Do(ctx, cmd); err != nil {
		return redis.NewCmdResult(nil, err)
	}
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		return script.Run(ctx, client, c.keys, c.args...)
	}
	return cmd
}

// wrap gives err the meaning that callers act on. What Redis refuses for a
// reason of the moment, and everything that is not an answer of Redis at all,
// is ws.ErrUnavailable; the rest is a fault of ours.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	var answer redis.Error
	if errors.As(err, &answer) && !ofTheMoment(answer) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", ws.ErrUnavailable, what, err)
}

func ofTheMoment(answer redis.Error) bool {
	for _, prefix := range []string{
		"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK",
		"OOM", "BUSY", "NOREPLICAS", "MISCONF", "NOSCRIPT", "UNKILLABLE", "NOAUTH", "ERR max number of clients",
	} {
		if strings.HasPrefix(answer.Error(), prefix) {
			return true
		}
	}
	return false
}
