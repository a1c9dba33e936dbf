package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrUnavailable: Redis did not do what it was asked, for reasons that have
// nothing to do with the command: no connection, no reply in time, no free
// connection in the pool, loading, read-only, failing over, refusing the
// password or the user's rights, or known to be down. The original error is wrapped too. Whether
// the command took effect is not known.
//
// A reply to the command (redis.Nil, WRONGTYPE, NOSCRIPT) and the caller's own
// cancellation do not match it.
var ErrUnavailable = errors.New("redis unavailable")

// IsUnavailable reports whether err matches ErrUnavailable.
func IsUnavailable(err error) bool { return errors.Is(err, ErrUnavailable) }

func unavailable(cause error) error {
	if errors.Is(cause, ErrUnavailable) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// class says what kept Redis from answering: the label of tandem_redis_errors_total.
type class string

const (
	classNone    class = "" // Redis answered, or was not asked
	classNetwork class = "network"
	classTimeout class = "timeout"
	classPool    class = "pool" // no free connection in time
	classClosed  class = "closed"
	classLoading class = "loading"
	classReplica class = "readonly"
	classCluster class = "cluster" // failing over, resharding, too few replicas
	classBusy    class = "busy"    // refuses for load, memory or disk
	classAuth    class = "auth"
)

var classes = []class{
	classNetwork, classTimeout, classPool, classClosed, classLoading,
	classReplica, classCluster, classBusy, classAuth,
}

// replyClasses are the error replies that are about the server and not about
// the command, by their first word.
var replyClasses = map[string]class{
	"LOADING":     classLoading,
	"READONLY":    classReplica,
	"CLUSTERDOWN": classCluster,
	"MASTERDOWN":  classCluster,
	"NOREPLICAS":  classCluster,
	"TRYAGAIN":    classCluster,
	"MOVED":       classCluster,
	"ASK":         classCluster,
	"BUSY":        classBusy,
	"MISCONF":     classBusy,
	"OOM":         classBusy,
	"NOAUTH":      classAuth,
	"WRONGPASS":   classAuth,
	"NOPERM":      classAuth,
}

// classify tells a command's error apart; ctx is the command's.
func classify(ctx context.Context, err error) class {
	if err == nil {
		return classNone
	}
	if reply := redis.Error(nil); errors.As(err, &reply) {
		text := reply.Error()
		if strings.HasPrefix(text, "ERR max number of clients") {
			return classBusy
		}
		word, _, _ := strings.Cut(text, " ")
		return replyClasses[word]
	}
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return classNone // the caller went away
	case errors.Is(err, redis.ErrClosed):
		return classClosed
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return classPool
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return classTimeout
	default:
		// Not a reply: whatever it is, nothing is known about the data.
		return classNetwork
	}
}
