package wsredis

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// receive hears the replica's channel until ctx ends.
func (p *Pairs) receive(ctx context.Context) {
	retry := retryAfterMin
	for {
		began := time.Now()
		err := p.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > p.deafAfter() {
			retry = retryAfterMin
			p.logger.Warn("subscription to pairs lost", "err", err)
		}
		p.metrics.restarts.Inc()
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry/2 + rand.N(retry)):
		case <-p.back:
		}
		retry = min(2*retry, retryAfterMax)
	}
}

// listen is the life of one subscription. What was published before it is
// confirmed is lost, so every claim is looked at then. It ends when nothing is
// heard, not even the probe.
func (p *Pairs) listen(ctx context.Context) error {
	pubsub := p.client.Subscribe(ctx, p.channel)
	defer context.AfterFunc(ctx, func() { _ = pubsub.Close() })()
	defer pubsub.Close()
	for {
		received, err := pubsub.ReceiveTimeout(ctx, p.deafAfter())
		if err != nil {
			return err
		}
		switch m := received.(type) {
		case *redis.Subscription:
			p.Resync()
			p.probe(ctx)
		case *redis.Message:
			p.hinted(m.Payload)
		}
	}
}
