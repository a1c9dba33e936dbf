package sessionstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// One script per atomic step. Each says in its head what it takes and
// returns; none makes up anything that differs from run to run.
var (
	//go:embed lua/create.lua
	createSource string
	//go:embed lua/save.lua
	saveSource string
	//go:embed lua/touch.lua
	touchSource string
	//go:embed lua/rotate.lua
	rotateSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/end.lua
	endSource string
	//go:embed lua/record.lua
	recordSource string
	//go:embed lua/redeem.lua
	redeemSource string

	createScript  = redis.NewScript(createSource)
	saveScript    = redis.NewScript(saveSource)
	touchScript   = redis.NewScript(touchSource)
	rotateScript  = redis.NewScript(rotateSource)
	releaseScript = redis.NewScript(releaseSource)
	endScript     = redis.NewScript(endSource)
	recordScript  = redis.NewScript(recordSource)
	redeemScript  = redis.NewScript(redeemSource)
)

// outcome is the first word of what a script returns.
type outcome string

const (
	done     outcome = "done"     // took effect, now or by a request before that was repeated
	ended    outcome = "ended"    // a tombstone stands; the detail is its text
	absent   outcome = "absent"   // no value, no tombstone
	conflict outcome = "conflict" // somebody wrote meanwhile; the detail is what
	given    outcome = "given"    // the ID has a handle already; the detail is the mark
	exists   outcome = "exists"   // a new ID that is taken
)

// reply is what a script returned.
type reply struct {
	outcome
	detail string // by outcome
	more   string // end.lua: the deleted bytes
}

func (r reply) unexpected(script string) error {
	return fmt.Errorf("sessionstore: %s.lua answered %q", script, string(r.outcome))
}

func (f *Factory) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (reply, error) {
	words, err := script.Run(ctx, f.rdb, keys, args...).StringSlice()
	if err != nil {
		return reply{}, storeError(err)
	}
	words = append(words, "", "", "") // the details that there are none of
	return reply{outcome(words[0]), words[1], words[2]}, nil
}

// call is one run of a script among many.
type call struct {
	keys []string
	args []any
}

// runAll runs a script many times in one round trip. The error is of the
// first that failed: the others took effect, and answered tells which.
func (f *Factory) runAll(ctx context.Context, script *redis.Script, calls []call) ([]*redis.Cmd, error) {
	cmds := make([]*redis.Cmd, len(calls))
	_, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, c := range calls {
			cmds[i] = script.EvalSha(ctx, p, c.keys, c.args...)
		}
		return nil
	})
	// Each node of a Cluster knows its own scripts. One that does not is told
	// with the calls themselves: SCRIPT LOAD would fail for one that is away,
	// and waiting for that may have taken all the time there was. Only nodes
	// that have just answered are asked here.
	if unknown := func(c *redis.Cmd) bool { return redis.HasErrorPrefix(c.Err(), "NOSCRIPT") }; slices.ContainsFunc(cmds, unknown) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, err = f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, c := range calls {
				if unknown(cmds[i]) {
					cmds[i] = script.Eval(ctx, p, c.keys, c.args...)
				}
			}
			return nil
		})
	}
	for _, cmd := range cmds {
		if err == nil && cmd.Err() != nil {
			err = cmd.Err()
		}
	}
	return cmds, storeError(err)
}

// answered returns what the script returned, and whether Redis did answer.
// When time runs out for one master of a Cluster go-redis marks the commands
// that were answered by others, too. Their answers stay.
func answered(cmd *redis.Cmd) (answer *redis.Cmd, ok bool) {
	return redis.NewCmdResult(cmd.Val(), nil), cmd.Val() != nil
}

// storeError keeps apart that Redis cannot be reached, that the caller gave
// up, and that Redis refused a command. redis.Nil is an answer, not an
// error; callers deal with it before.
func storeError(err error) error {
	var refused redis.Error
	switch {
	case err == nil, errors.Is(err, ErrUnavailable):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("sessionstore: %w", err)
	case errors.As(err, &refused) && !redisconn.IsUnavailable(err):
		return fmt.Errorf("sessionstore: redis: %w", err)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// isNil reports that a key was not there.
func isNil(err error) bool { return errors.Is(err, redis.Nil) }

// detachedTimeout bounds work that goes on although its request has ended.
const detachedTimeout = 5 * time.Second

// detached is for the steps after the one that took effect: a client that
// went away must not leave them undone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
}

// ms is a duration as the scripts take it.
func ms(d time.Duration) int64 { return d.Milliseconds() }

// announcement is a piece of news, ready to publish. Handles are made of
// letters and digits, so that nothing needs to be escaped.
func announcement(what, handle string) string {
	return strings.Join([]string{`{"t":"`, what, `","sid":"`, handle, `"}`}, "")
}
