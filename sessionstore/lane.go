package sessionstore

import (
	"context"
	"sync"
	"time"
)

// laneWait is how long a writer lets others go first.
const laneWait = time.Second

// lanes make those who write one session through one factory go one after the
// other, in the order in which they came. Each for himself, they would meet
// one another in every attempt, and most of what they send would be in vain.
// In a lane a writer meets those of other replicas at most.
//
// This is manners and no lock: compare-and-set keeps the writes apart. So one
// that hangs, or whose callback is slow or writes the same session itself,
// holds others up for laneWait and no longer.
type lanes struct {
	mu   sync.Mutex
	busy map[ref]*lane
}

// lane is the way to one session.
type lane struct {
	turn  chan struct{} // holds one value while somebody writes; who waits sends
	users int           // guarded by lanes.mu: who writes or waits
}

// enter waits for this writer's turn. What it returns ends it, and must be
// called once. When ctx ends it does not wait any longer.
func (l *lanes) enter(ctx context.Context, r ref) (leave func()) {
	l.mu.Lock()
	way := l.busy[r]
	if way == nil {
		way = &lane{turn: make(chan struct{}, 1)}
		if l.busy == nil {
			l.busy = map[ref]*lane{}
		}
		l.busy[r] = way
	}
	way.users++
	l.mu.Unlock()

	mine := way.await(ctx)
	return func() {
		if mine {
			<-way.turn
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if way.users--; way.users == 0 {
			delete(l.busy, r)
		}
	}
}

// await reports whether the turn has come.
func (w *lane) await(ctx context.Context) bool {
	select {
	case w.turn <- struct{}{}:
		return true
	default:
	}
	long := time.NewTimer(laneWait)
	defer long.Stop()
	select {
	case w.turn <- struct{}{}:
		return true
	case <-long.C:
	case <-ctx.Done():
	}
	return false
}
