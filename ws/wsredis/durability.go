package wsredis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// durabilityLooks is how often Redis is asked whether it is durable. Somebody
// may change that while it runs.
const durabilityLooks = time.Minute

// durability is what is known of Redis' disk. It belongs to one goroutine.
//
// A restart of a Redis that is durable loses nothing that was acknowledged, so
// that documents go on in their epoch. Of any other, and of one that does not
// let itself be asked, nobody knows: then their epoch ends with it.
type durability struct {
	known string    // "1" durable, "0" not, "" not asked yet: what scripts are told
	asked time.Time // and answered
}

// look asks Redis if it is time to, for as long as patience at most. Without
// an answer, what was known counts.
func (d *durability) look(ctx context.Context, client redis.UniversalClient, patience time.Duration) string {
	if time.Since(d.asked) < durabilityLooks {
		return d.known
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	durable, err := allDurable(ctx, client)
	switch {
	case err == nil && durable:
		d.known = "1"
	case err == nil, redis.IsPermissionError(err), redis.HasErrorPrefix(err, "ERR"):
		d.known = "0" // asking again soon would not change that
	default:
		return d.known
	}
	d.asked = time.Now()
	return d.known
}

// allDurable asks every master.
func allDurable(ctx context.Context, client redis.UniversalClient) (bool, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return isDurable(ctx, client)
	}
	masters := make(chan bool, 1)
	masters <- true
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		durable, err := isDurable(ctx, master)
		masters <- <-masters && durable
		return err
	})
	return <-masters, err
}

func isDurable(ctx context.Context, client redis.Cmdable) (bool, error) {
	settings, err := client.ConfigGet(ctx, "*append*").Result()
	return settings["appendonly"] == "yes" && settings["appendfsync"] == "always" &&
		settings["no-appendfsync-on-rewrite"] == "no", err
}
