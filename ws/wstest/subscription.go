package wstest

import (
	"sync"
	"time"

	"github.com/seed-6230208e/tandem/ws"
)

// subscription delivers announcements to one receiver, in order, from its own
// goroutine, as a real Backplane does. Its queue is unbounded: it is a fake.
type subscription struct {
	done    chan struct{} // closed by stop
	stopped chan struct{} // closed when the last call has returned
	wake    chan struct{} // capacity 1: there is something in queue

	mu    sync.Mutex
	queue []announcement
}

type announcement struct {
	due     time.Time
	deliver func(ws.Receiver)
}

func newSubscription(to ws.Receiver) *subscription {
	s := &subscription{done: make(chan struct{}), stopped: make(chan struct{}), wake: make(chan struct{}, 1)}
	go s.run(to)
	return s
}

func (s *subscription) add(delay time.Duration, deliver func(ws.Receiver)) {
	s.mu.Lock()
	s.queue = append(s.queue, announcement{time.Now().Add(delay), deliver})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// stop returns after the last call to the receiver has.
func (s *subscription) stop() {
	close(s.done)
	<-s.stopped
}

func (s *subscription) run(to ws.Receiver) {
	defer close(s.stopped)
	for {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, a := range queue {
			if !s.wait(time.Until(a.due)) {
				return
			}
			a.deliver(to)
		}
		select {
		case <-s.wake:
		case <-s.done:
			return
		}
	}
}

// wait reports false when the subscription was stopped meanwhile.
func (s *subscription) wait(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-s.done:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}
