package ws

import (
	"sync"
	"time"
)

// allowance is what all connections of one user to this replica may send
// together. Its methods are safe for concurrent use; those of a nil one allow
// everything.
type allowance struct {
	mu                 sync.Mutex
	frames, operations bucket

	holders int // guarded by allowances.mu
}

// frame uses one frame's part, or says how long the next one takes.
func (a *allowance) frame(now time.Time) (wait time.Duration, ok bool) {
	if a == nil {
		return 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.frames.take(now)
}

// operation is the same for what a frame with an operation takes beside that.
func (a *allowance) operation(now time.Time) (wait time.Duration, ok bool) {
	if a == nil {
		return 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.operations.take(now)
}

// allowances has one for each user who is connected.
type allowances struct {
	limits Limits // fixed

	mu    sync.Mutex
	users map[string]*allowance
}

func newAllowances(l Limits) *allowances {
	return &allowances{limits: l, users: make(map[string]*allowance)}
}

// hold returns the user's allowance, which a connection gives back with
// release. It is nil where nothing is limited, or for nobody.
func (a *allowances) hold(user string) *allowance {
	if user == "" || a.limits.FramesPerUser == 0 && a.limits.OperationsPerUser == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.users[user]
	if held == nil {
		held = &allowance{frames: newBucket(a.limits.FramesPerUser), operations: newBucket(a.limits.OperationsPerUser)}
		a.users[user] = held
	}
	held.holders++
	return held
}

// release gives back what hold returned. With the last connection of a user
// the allowance goes: opening a new one for each burst is what the limits on
// connections and upgrades are for.
func (a *allowances) release(user string, held *allowance) {
	if held == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if held.holders--; held.holders == 0 {
		delete(a.users, user)
	}
}
