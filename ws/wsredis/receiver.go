package wsredis

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	channelsPerCommand = 500
	retryAfterMin      = 50 * time.Millisecond
	retryAfterMax      = 2 * time.Second
)

var errDeaf = errors.New("nothing is heard on the subscription")

// run keeps a pub/sub connection until ctx ends, and returns after its
// goroutines.
func (s *subscriptions) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(s.ended)
	wg.Go(func() { s.dispatch(ctx) })

	retry := retryAfterMin
	for {
		err := s.live(ctx)
		if ctx.Err() != nil {
			return
		}
		s.metrics.restarts.Inc()
		if s.lost(err) {
			retry = retryAfterMin
			s.logger.Warn("subscription lost", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry/2 + rand.N(retry)):
		case <-s.back:
		}
		retry = min(2*retry, retryAfterMax)
	}
}

// live is the life of one connection: it returns when that failed, went deaf,
// or ctx ended. A fresh PubSub each time, and not go-redis's own reconnecting
// one, because a deaf connection shows no error that would make it reconnect.
func (s *subscriptions) live(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pubsub := s.client.Subscribe(ctx) // connects later
	s.allDirty()
	select {
	case <-s.overdue: // on the connection before
	default:
	}

	var wg sync.WaitGroup
	wg.Go(func() { cancel(s.read(ctx, pubsub)) })
	wg.Go(func() { cancel(s.follow(ctx, pubsub)) })
	wg.Go(func() { cancel(s.watch(ctx)) })
	<-ctx.Done()
	_ = pubsub.Close() // unblocks read
	wg.Wait()
	return context.Cause(ctx)
}

// lost fails those who wait for a confirmation, unless Redis may well give it
// on the next connection, and reports whether the probe had been heard on the
// one that ended.
func (s *subscriptions) lost(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, errDeaf) {
		for _, t := range s.topics {
			t.finishLocked(err)
		}
	}
	heard := !s.heard.IsZero()
	s.heard = time.Time{}
	return heard
}

func (s *subscriptions) read(ctx context.Context, pubsub *redis.PubSub) error {
	for {
		received, err := pubsub.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := received.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				s.confirmed(m.Channel)
			}
		case *redis.Message:
			if err := s.received(ctx, m); err != nil {
				return err
			}
		}
	}
}

// confirmed takes note that channel delivers from now on. When it did before,
// announcements in between are lost.
func (s *subscriptions) confirmed(channel string) {
	if channel == s.probe {
		notify(s.probeable)
		return
	}
	document, _ := documentOf(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[document]
	switch {
	case t == nil: // unsubscribed meanwhile
	case t.confirmed:
		s.wantGapLocked(t, gapResubscribed)
	default:
		t.finishLocked(nil)
	}
}

func (s *subscriptions) received(ctx context.Context, m *redis.Message) error {
	s.mu.Lock()
	if m.Channel == s.probe {
		first := s.heard.IsZero()
		s.heard = time.Now()
		s.mu.Unlock()
		if first {
			s.logger.Info("subscription delivers")
		}
		return nil
	}
	document, _ := documentOf(m.Channel)
	t := s.topics[document]
	s.mu.Unlock()
	if t == nil {
		return nil // unsubscribed meanwhile
	}
	select {
	case s.events <- event{t, m.Payload}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow makes the connection's subscriptions those of topics. It alone sends
// commands on it, so that SUBSCRIBE and UNSUBSCRIBE of one document cannot
// overtake each other.
func (s *subscriptions) follow(ctx context.Context, pubsub *redis.PubSub) error {
	if err := pubsub.Subscribe(ctx, s.probe); err != nil {
		return err
	}
	for {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		wanted, unwanted := s.takeDirty()
		for channels := range slices.Chunk(wanted, channelsPerCommand) {
			if err := pubsub.Subscribe(ctx, channels...); err != nil {
				return err
			}
		}
		for channels := range slices.Chunk(unwanted, channelsPerCommand) {
			if err := pubsub.Unsubscribe(ctx, channels...); err != nil {
				return err
			}
		}
	}
}

func (s *subscriptions) takeDirty() (wanted, unwanted []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for document := range s.dirty {
		if s.topics[document] != nil {
			wanted = append(wanted, newsChannel(document))
		} else {
			unwanted = append(unwanted, newsChannel(document))
		}
	}
	clear(s.dirty)
	return wanted, unwanted
}

func (s *subscriptions) allDirty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.dirty) // a new connection has nothing to unsubscribe from
	for document := range s.topics {
		s.dirtyLocked(document)
	}
}

// watch publishes the probe once a tick and fails when it is not heard, or a
// confirmation does not come: a subscription can go silent without an error.
func (s *subscriptions) watch(ctx context.Context) error {
	began := time.Now()
	ticker := time.NewTicker(s.tick)
	defer ticker.Stop()
	for {
		select {
		case <-s.probeable:
		case <-ticker.C:
		case <-s.overdue:
			return errDeaf
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
		heard := s.heard
		s.mu.Unlock()
		if time.Since(began) > s.deafAfter() && time.Since(heard) > s.deafAfter() {
			return errDeaf
		}
		// A failure shows in the probe not being heard.
		publish, cancel := context.WithTimeout(ctx, s.tick)
		_ = s.client.Publish(publish, s.probe, "").Err()
		cancel()
	}
}

// deafAfter is how long the probe may be unheard: 8 s with a tick of 3 s.
func (s *subscriptions) deafAfter() time.Duration { return s.tick * 8 / 3 }

func (s *subscriptions) healthy() error {
	s.mu.Lock()
	heard := s.heard
	s.mu.Unlock()
	switch silence := time.Since(heard); {
	case heard.IsZero():
		return errors.New("subscription is not delivering yet")
	case silence > s.deafAfter():
		return errDeaf
	}
	return nil
}
