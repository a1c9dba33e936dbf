package wsredis

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// settle lets a burst of reasons to wake up become one.
	settle = 20 * time.Millisecond

	// prolongs is how often in a key's life its TTL is looked at.
	prolongs = 20
)

// maintain ticks until ctx ends. Idle, a tick costs one PEXPIRE; each open
// document adds four plain reads in two ticks, and a script when something is
// not as it was left; each other replica met there adds one PTTL a tick; and
// each kind goes in one round trip.
func (b *Backplane) maintain(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	others := &watch{leases: b.leases}
	var disk durability
	for {
		select {
		case <-timer.C:
		case <-b.wake:
			disk.asked = time.Time{} // Redis may be back with other settings
			select {
			case <-time.After(settle):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
		next := b.pass(ctx, others)
		b.durable.Store(disk.look(ctx, b.client, b.tick))
		timer.Reset(next)
	}
}

// pass does a tick's work and returns when the next is due. What fails is left
// to the next.
func (b *Backplane) pass(ctx context.Context, others *watch) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, b.tick)
	defer cancel()
	if err := b.leases.renew(ctx); err != nil {
		b.logger.Debug("tick", "err", err)
		others.lost()
		return b.tick
	}
	b.check(ctx, b.subs.due(b.tick*3/2))
	topics := b.subs.open()
	b.survey(ctx, topics)
	return b.reap(ctx, topics, others)
}

// check finds lost logs, missed announcements and lost members, and prolongs
// the lives of keys now and then.
func (b *Backplane) check(ctx context.Context, topics []*topic) {
	if len(topics) == 0 {
		return
	}
	history := b.histories(ctx) // before what is read
	if durable, _ := b.durable.Load().(string); history != "" {
		history += " durable:" + durable
	}
	topics = b.glance(ctx, topics, history)
	calls := make([]call, len(topics))
	for i, t := range topics {
		known, prolong := b.subs.position(t), 0
		if b.subs.takeProlong(t, b.prolongEvery()) {
			prolong = 1
		}
		calls[i] = call{
			keys: append(logKeys(t.document), presenceKeys(t.document)...),
			args: b.logArgs(t.document, known.Epoch, known.Seq,
				b.presence.sample(t.document), int64(presenceLife/time.Second), prolong),
		}
	}
	for i, result := range runAll(ctx, b.client, checkScript, calls) {
		values, err := result.Slice()
		r := reader{values: values}
		at, number, present := r.position(), r.seq(), r.flag()
		if err != nil || r.failed {
			b.logger.Debug("check", "document", topics[i].document, "err", err)
			continue
		}
		b.subs.checked(topics[i], at, number)
		b.subs.seenIn(topics[i], history)
		if !present {
			b.subs.wantSurvey(topics[i])
		}
	}
}

// survey compares the members in Redis with ours where there is a reason to.
func (b *Backplane) survey(ctx context.Context, topics []*topic) {
	for _, t := range topics {
		if !b.subs.takeSurvey(t) {
			continue
		}
		put, others, err := b.presence.refill(ctx, t.document)
		if err != nil {
			b.subs.wantSurvey(t)
			b.logger.Debug("refill", "document", t.document, "err", err)
			continue
		}
		b.subs.met(t, others)
		if put > 0 {
			b.metrics.refilled.Add(float64(put))
			b.logger.Info("members put back into Redis", "document", t.document, "members", put)
		}
	}
}

// reap removes the members of dead replicas, and returns when to look again:
// at the next tick, or as soon as the next replica can be dead.
func (b *Backplane) reap(ctx context.Context, topics []*topic, others *watch) time.Duration {
	where := b.subs.others(topics, b.incarnation)
	dead, next, err := others.look(ctx, slices.Collect(maps.Keys(where)))
	if err != nil {
		b.logger.Debug("reap", "err", err)
		return b.tick
	}
	graves := map[*topic]struct{}{}
	for replica := range dead {
		for _, t := range where[replica] {
			graves[t] = struct{}{}
		}
	}
	for t := range graves {
		n, err := b.presence.reap(ctx, t.document, dead)
		if err != nil {
			b.logger.Debug("reap", "document", t.document, "err", err)
			continue
		}
		b.subs.forget(t, dead)
		if n > 0 {
			b.metrics.reaped.Add(float64(n))
			b.logger.Info("removed members of dead replicas", "document", t.document, "members", n)
		}
	}
	return min(next, b.tick)
}
