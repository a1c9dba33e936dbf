package wsredis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/ws"
)

// eventsAhead bounds what was received and not yet delivered. When it is full
// the connection is not read: Redis buffers then, cuts us off at its limit
// (client-output-buffer-limit pubsub), and the new subscription is a Gap for
// everybody. So nothing is ever dropped unnoticed.
const eventsAhead = 256

// subscriptions holds one pub/sub connection for all documents of a replica.
//
// The wanted state is in topics; the connection follows it (receiver.go).
// Receivers are called from one goroutine only, which is what lets
// unsubscribe wait for the last call.
type subscriptions struct {
	// Fixed after construction.
	client  redis.UniversalClient
	probe   string // channel of the delivery probe
	tick    time.Duration
	logger  *slog.Logger
	metrics *metrics
	urgent  func() // the tick is wanted now; must not block

	// told is told what a replica said of members. It must not block.
	told func(document, replica string, change ws.PresenceChange)

	events    chan event    // reader → dispatcher
	changed   chan struct{} // capacity 1: dirty has something
	gaps      chan struct{} // capacity 1: a topic's gap is due
	probeable chan struct{} // capacity 1: the probe's channel was confirmed
	overdue   chan struct{} // capacity 1: a confirmation does not come
	back      chan struct{} // capacity 1: Redis is back
	ended     chan struct{} // closed when run is over

	mu       sync.Mutex
	topics   map[string]*topic   // by document
	dirty    map[string]struct{} // documents whose subscription may differ from topics
	calling  *topic              // whose receiver is being called
	returned *sync.Cond          // on mu: calling changed
	heard    time.Time           // when the probe was last heard; zero: not on this connection
}

// event is an announcement on its way to the dispatcher.
type event struct {
	topic   *topic
	payload string
}

func newSubscriptions(client redis.UniversalClient, probe string, tick time.Duration, logger *slog.Logger, m *metrics) *subscriptions {
	s := &subscriptions{
		client: client, probe: probe, tick: tick, logger: logger, metrics: m,
		events:    make(chan event, eventsAhead),
		changed:   make(chan struct{}, 1),
		gaps:      make(chan struct{}, 1),
		probeable: make(chan struct{}, 1),
		overdue:   make(chan struct{}, 1),
		back:      make(chan struct{}, 1),
		ended:     make(chan struct{}),
		topics:    map[string]*topic{},
		dirty:     map[string]struct{}{},
	}
	s.returned = sync.NewCond(&s.mu)
	return s
}

func (s *subscriptions) subscribe(ctx context.Context, document string, r ws.Receiver) (func(), error) {
	t := newTopic(document, r)
	s.mu.Lock()
	if s.topics[document] != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("document %s is subscribed already", document)
	}
	s.topics[document] = t
	s.dirtyLocked(document)
	s.mu.Unlock()

	if err := s.confirmation(ctx, t); err != nil {
		s.unsubscribe(t)
		return nil, fmt.Errorf("%w: subscribe: %w", ws.ErrUnavailable, err)
	}
	s.metrics.subscriptions.Inc()
	return sync.OnceFunc(func() {
		s.unsubscribe(t)
		s.metrics.subscriptions.Dec()
	}), nil
}

// confirmation waits until Redis has confirmed the topic's subscription. A
// connection on which that takes too long is deaf; the next one confirms it.
func (s *subscriptions) confirmation(ctx context.Context, t *topic) error {
	overdue := time.NewTimer(s.tick * 2 / 3)
	defer overdue.Stop()
	for {
		select {
		case <-t.ready:
			s.mu.Lock()
			defer s.mu.Unlock()
			return t.failed
		case <-overdue.C:
			notify(s.overdue)
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return context.Canceled
		}
	}
}

// unsubscribe returns after the last call to the receiver has.
func (s *subscriptions) unsubscribe(t *topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.closed = true
	if s.topics[t.document] == t {
		delete(s.topics, t.document)
		s.dirtyLocked(t.document)
	}
	for s.calling == t {
		s.returned.Wait()
	}
}

func (s *subscriptions) dirtyLocked(document string) {
	s.dirty[document] = struct{}{}
	notify(s.changed)
}

// dispatch calls the receivers until ctx ends.
func (s *subscriptions) dispatch(ctx context.Context) {
	for {
		select {
		case e := <-s.events:
			s.deliver(e)
		case <-s.gaps:
			s.deliverGaps()
		case <-ctx.Done():
			return
		}
	}
}

func (s *subscriptions) deliver(e event) {
	a, err := parseAnnouncement([]byte(e.payload))
	if err != nil {
		s.metrics.announcements.WithLabelValues(kindInvalid).Inc()
		s.logger.Warn("announcement cannot be read", "document", e.topic.document, "err", err)
		s.wantGap(e.topic, gapInvalid)
		return
	}
	s.metrics.announcements.WithLabelValues(a.kind).Inc()
	switch a.kind {
	case kindOperation:
		s.note(e.topic, a)
		s.call(e.topic, func(r ws.Receiver) { r.Operation(a.at.Epoch, ws.Entry{Seq: a.at.Seq, Frame: a.frame}) })
	case kindPresence:
		s.note(e.topic, a)
		s.told(e.topic.document, a.replica, a.presence)
		s.call(e.topic, func(r ws.Receiver) { r.Presence(a.presence) })
	case kindReset:
		s.learn(e.topic.document, a.at)
	}
}

// note remembers what a delivered announcement says.
func (s *subscriptions) note(t *topic, a announcement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.kind == kindPresence {
		t.replicas[a.replica] = struct{}{}
		if t.news.heard(a.number, a.first) {
			s.wantGapLocked(t, gapMissed)
		}
		return
	}
	if t.learnLocked(a.at) {
		s.wantGapLocked(t, gapEpoch)
	}
	t.delivered = max(t.delivered, a.at.Seq)
}

// learn takes note of a position of the document that somebody has seen.
func (s *subscriptions) learn(document string, at ws.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.topics[document]; t != nil && t.learnLocked(at) {
		s.wantGapLocked(t, gapEpoch)
	}
}

// readUpTo takes note that the log was read here. After a subscription that is
// what its owner begins with: whatever comes later has to be announced.
func (s *subscriptions) readUpTo(document string, at ws.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[document]
	if t == nil {
		return
	}
	if t.learnLocked(ws.Position{Epoch: at.Epoch}) {
		s.wantGapLocked(t, gapEpoch)
	}
	if t.confirmed {
		t.baseLocked(at.Seq)
	}
}

// membersRead takes note that the members were read here when the newest
// announcement had that number. After a subscription that is what its owner
// begins with.
func (s *subscriptions) membersRead(document string, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.topics[document]; t != nil && t.confirmed {
		t.news.base(number)
	}
}

// checked compares a topic with what the tick found: the log's head, and the
// number of the newest announcement of a change of members.
func (s *subscriptions) checked(t *topic, at ws.Position, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.checked = time.Now()
	renewed := t.learnLocked(at)
	missed := t.checkLocked(at.Seq)
	lost := t.news.check(number)
	switch {
	case renewed:
		s.wantGapLocked(t, gapEpoch)
	case missed, lost:
		s.wantGapLocked(t, gapMissed)
	}
}

func (s *subscriptions) wantGap(t *topic, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wantGapLocked(t, reason)
}

func (s *subscriptions) wantGapLocked(t *topic, reason string) {
	t.gap, t.survey = true, true
	s.metrics.gaps.WithLabelValues(reason).Inc()
	notify(s.gaps)
	if reason == gapResubscribed || reason == gapEpoch { // members may be lost as well
		s.urgent()
	}
}

// resync says that Redis is back after it was away.
func (s *subscriptions) resync() {
	notify(s.back)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.topics {
		s.wantGapLocked(t, gapResync)
	}
}

// deliverGaps calls each Gap that is due. Several that fell due meanwhile are
// one.
func (s *subscriptions) deliverGaps() {
	var due []*topic
	s.mu.Lock()
	for _, t := range s.topics {
		if t.gap {
			t.gap = false
			due = append(due, t)
		}
	}
	s.mu.Unlock()
	for _, t := range due {
		s.call(t, ws.Receiver.Gap)
	}
}

// call runs f on the topic's receiver, unless it was unsubscribed.
func (s *subscriptions) call(t *topic, f func(ws.Receiver)) {
	s.mu.Lock()
	if t.closed {
		s.mu.Unlock()
		return
	}
	s.calling = t
	s.mu.Unlock()

	f(t.receiver)

	s.mu.Lock()
	s.calling = nil
	s.returned.Broadcast()
	s.mu.Unlock()
}

// open returns the topics of the moment.
func (s *subscriptions) open() []*topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	topics := make([]*topic, 0, len(s.topics))
	for _, t := range s.topics {
		topics = append(topics, t)
	}
	return topics
}

// notify wakes whoever waits on a channel of capacity 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}
