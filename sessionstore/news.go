package sessionstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a piece of news says happened to a session.
const (
	newsChanged = "changed"
	newsEnded   = "ended"
	newsRotated = "rotated"
)

// news is one message of the channel. It names the session by its handle,
// never by its ID, and it is a hint: only the end of a session is believed
// as told, everything else is read from Redis again.
type news struct {
	What   string `json:"t"`
	Handle string `json:"sid"`
	Reason Reason `json:"reason,omitempty"`
}

// probeChannel is the channel on which one subscription hears itself.
func probeChannel(token string) string { return "tandem:probe:" + token }

// decodeNews reads one message. Anybody who can PUBLISH can write here, so
// that what does not fit is refused, and an unknown reason becomes "revoked".
func decodeNews(payload string) (news, error) {
	var n news
	if err := json.Unmarshal([]byte(payload), &n); err != nil {
		return news{}, fmt.Errorf("sessionstore: news: %w", err)
	}
	if !ValidHandle(n.Handle) {
		return news{}, errors.New("sessionstore: news without a handle")
	}
	switch n.What {
	case newsChanged, newsRotated:
		n.Reason = ""
	case newsEnded:
		switch n.Reason {
		case ReasonLogout, ReasonRevoked, ReasonExpired, ReasonGone:
		default:
			n.Reason = ReasonRevoked
		}
	default:
		return news{}, errors.New("sessionstore: news of an unknown kind")
	}
	return n, nil
}

// subscription keeps one connection subscribed to the news and proves, with
// messages that it sends to itself, that they are delivered: a subscription
// can go silent without any error. Every new life of the connection may have
// missed news, and says so.
type subscription struct {
	// Fixed after construction.
	rdb   redis.UniversalClient
	probe string // channel that only this subscription listens to

	// probeEvery is the pause between two probes. A connection that is
	// silent for twice as long is given up.
	probeEvery time.Duration

	// Called from the receiving goroutine; they must not block. onFailure
	// says that a life of the connection ended, and whether it worked.
	onNews    func(news)
	onGap     func()
	onFailure func(cause subscriptionFailure, worked bool, err error)

	// again has the next attempt made at once: Redis is back.
	again chan struct{} // capacity 1

	// heard is when the last probe came back on the present connection; nil
	// while it has not proven itself.
	heard atomic.Pointer[time.Time]
}

// subscriptionFailure says why a subscribed connection was given up: a
// closed set, the label of a metric.
type subscriptionFailure string

const (
	failedConnection subscriptionFailure = "connection" // it broke, or could not be made
	failedProbe      subscriptionFailure = "probe"      // it was silent
)

// Pauses before a broken subscription is made again.
const (
	firstResubscribe = 50 * time.Millisecond
	lastResubscribe  = 2 * time.Second
)

// errSilent ends a connection whose probes do not come back.
var errSilent = errors.New("sessionstore: session news are not delivered: probes do not come back")

// healthy is nil when a probe came back lately on the present connection.
func (s *subscription) healthy() error {
	heard := s.heard.Load()
	if heard == nil {
		return errors.New("sessionstore: not subscribed to session news")
	}
	if time.Since(*heard) > s.patience() {
		return errSilent
	}
	return nil
}

// patience is how long a connection may be silent.
func (s *subscription) patience() time.Duration { return 2 * s.probeEvery }

// run subscribes again and again until ctx ends.
func (s *subscription) run(ctx context.Context) {
	for delay := firstResubscribe; ctx.Err() == nil; {
		err := s.live(ctx)
		proven := s.heard.Swap(nil) != nil
		if ctx.Err() != nil {
			return
		}
		cause := failedConnection
		if errors.Is(err, errSilent) {
			cause = failedProbe
		}
		s.onFailure(cause, proven, err)
		if proven {
			delay = firstResubscribe
		}
		// Jitter keeps the replicas from coming back all at once.
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-s.again:
		case <-ctx.Done():
		}
		delay = min(2*delay, lastResubscribe)
	}
}

// live is one life of the connection: it subscribes, reports the gap before
// it, and delivers until the connection breaks, goes silent or ctx ends.
// go-redis would reconnect by itself; giving every connection up at its
// first error instead leaves no gap unseen.
func (s *subscription) live(ctx context.Context) error {
	pubsub := s.rdb.Subscribe(ctx, newsChannel, s.probe)
	ctx, giveUp := context.WithCancelCause(ctx)
	subscribed, proved := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(proved)
		giveUp(s.prove(ctx, subscribed))
		// Receive does not heed its context; closing is what ends it.
		_ = pubsub.Close()
	}()
	defer func() {
		giveUp(nil)
		<-proved
	}()

	for confirmed := 0; ; {
		message, err := pubsub.Receive(ctx)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		switch m := message.(type) {
		case *redis.Subscription:
			if confirmed++; confirmed == 2 {
				close(subscribed)
			}
			if confirmed >= 2 { // past two: go-redis moved to another connection
				s.onGap()
			}
		case *redis.Message:
			s.deliver(m)
		}
	}
}

func (s *subscription) deliver(m *redis.Message) {
	if m.Channel == s.probe {
		now := time.Now()
		s.heard.Store(&now)
		return
	}
	if n, err := decodeNews(m.Payload); err == nil {
		s.onNews(n)
	}
}

// prove sends probes once the connection is subscribed and returns errSilent
// when none came back for too long, nil when ctx ends. A probe that cannot
// be sent counts as one that did not come back: either way nothing is known
// about the subscription.
func (s *subscription) prove(ctx context.Context, subscribed <-chan struct{}) error {
	last := time.Now()
	tick := time.NewTicker(s.probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-subscribed:
			subscribed = nil // the first probe at once, the others by the clock
		case <-tick.C:
		}
		if heard := s.heard.Load(); heard != nil {
			last = *heard
		}
		if time.Since(last) > s.patience() {
			return errSilent
		}
		if subscribed == nil {
			send, cancel := context.WithTimeout(ctx, s.probeEvery)
			_ = s.rdb.Publish(send, s.probe, "").Err()
			cancel()
		}
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
