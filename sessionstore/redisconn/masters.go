package redisconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// masters is what a probe found out about a Cluster. One master that is away
// is no reason to refuse what the others can do: its own commands fail at
// once, and what is bound to no slot goes to one that answers. It is the zero
// value anywhere else. It does not change.
type masters struct {
	away   map[string]error // by address: why
	living []string         // addresses
}

// probeKeys is how many keys are tried to find one for each master. One with
// so few slots that none is among them is left to its commands.
const probeKeys = 512

// askMasters asks every master of the Cluster for a write that changes
// nothing. An error means that none takes it.
func askMasters(ctx context.Context, cluster *redis.ClusterClient) (masters, error) {
	keys := map[*redis.Client]string{}
	for i := range probeKeys {
		key := probeKey + ":" + strconv.Itoa(i)
		node, err := cluster.MasterForKey(ctx, key)
		if err != nil {
			return masters{}, err // no node tells who serves what
		}
		if _, known := keys[node]; !known {
			keys[node] = key
		}
	}
	var (
		asking sync.WaitGroup
		mu     sync.Mutex // guards the following
		found  = masters{away: map[string]error{}}
		failed error
	)
	for node, key := range keys {
		asking.Go(func() {
			err := node.Del(ctx, key).Err()
			addr := node.Options().Addr
			mu.Lock()
			defer mu.Unlock()
			if err != nil && !ofAnotherSlot(err) {
				found.away[addr], failed = err, err
				return
			}
			found.living = append(found.living, addr)
		})
	}
	asking.Wait()
	if len(found.living) == 0 {
		return masters{}, failed
	}
	return found, nil
}

// ofAnotherSlot reports that a node answers, and is only not the one to ask.
func ofAnotherSlot(err error) bool {
	reply := redis.Error(nil)
	if !errors.As(err, &reply) {
		return false
	}
	text := reply.Error()
	return strings.HasPrefix(text, "MOVED ") || strings.HasPrefix(text, "ASK ") ||
		strings.HasPrefix(text, "CLUSTERDOWN Hash slot not served")
}

// refusal is what a command gets that only a master can run that is away, nil
// if it is not. go-redis does not repeat it: the cause is told, not wrapped.
func (m *masters) refusal(addr string) error {
	if cause := m.away[addr]; cause != nil {
		return fmt.Errorf("%w: master %s: %v", ErrUnavailable, addr, cause) //nolint:errorlint // see above
	}
	return nil
}

// standIn is the address to dial for this one: itself, unless it is away. A
// subscription hears the same on every node.
func (m *masters) standIn(addr string) string {
	if m.away[addr] != nil {
		return m.living[0]
	}
	return addr
}

// publisher is the node to publish on while one is away, which go-redis might
// choose; nil: any, or it is another command.
func (m *masters) publisher(ctx context.Context, cluster *redis.ClusterClient, cmd redis.Cmder) *redis.Client {
	if len(m.away) == 0 || cmd.Name() != "publish" {
		return nil
	}
	for i := range probeKeys { // the client's own view of who serves what may differ from the probe's
		node, err := cluster.MasterForKey(ctx, probeKey+":"+strconv.Itoa(i))
		if err == nil && m.away[node.Options().Addr] == nil {
			return node
		}
	}
	return nil
}
