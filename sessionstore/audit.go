package sessionstore

import (
	"context"
	"sync"
	"time"
)

// The audit trail: who logged in, whose ID was replaced, which session ended
// and why, and that somebody tried an ID. Lines name sessions by handle.

// reportUnknown notes that a client presented an ID that nobody has. Anybody
// can do that as often as they like: some lines a minute are enough, with the
// number of those that were left out since.
func (f *Factory) reportUnknown(ctx context.Context, id string) {
	leftOut, ok := f.unknown.take(time.Now())
	if !ok {
		return
	}
	meta, _ := ctx.Value(metaKey{}).(Meta)
	f.log.InfoContext(ctx, "unknown session ID presented", "well_formed", ValidID(id), "client", meta.Address, "left_out", leftOut)
}

// lose drops a session from the index that is not there any more though
// nobody has ended it. Of all that notice the first one writes it down.
func (f *Factory) lose(ctx context.Context, handle string, reason Reason) {
	if user, known := f.forget(ctx, handle, ""); known {
		f.metrics.ended.WithLabelValues(string(reason)).Inc()
		f.log.InfoContext(ctx, "session ended", "session", handle, "user", user, "reason", string(reason))
	}
}

// loseAll is lose for what describe found without a session in the index of
// a user.
func (f *Factory) loseAll(ctx context.Context, infos []Info, userID string) {
	for _, i := range infos {
		f.lose(ctx, i.Handle, f.whyLost(i, time.Now()))
		if i.UserID != userID { // the entry has no record, or another user's
			f.forget(ctx, i.Handle, userID)
		}
	}
}

// whyLost is ReasonExpired when its time was over, as far as the index knows.
func (f *Factory) whyLost(i Info, now time.Time) Reason {
	idleEnd := i.LastSeen.Add(f.cfg.IdleTimeout)
	if now.Before(idleEnd) && now.Before(i.ExpiresAt) {
		return ReasonGone
	}
	return ReasonExpired
}

// ration lets a few through in each period, and counts the others. The zero
// value is ready. Safe for concurrent use.
type ration struct {
	mu      sync.Mutex
	since   time.Time // guarded by mu: when the period began
	taken   int       // guarded by mu: within the period
	leftOut int       // guarded by mu: since the last that was let through
}

const (
	rationPeriod = time.Minute
	rationSize   = 10
)

// take reports whether this one is let through, and how many were not since
// the last one that was.
func (r *ration) take(now time.Time) (leftOut int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= rationPeriod {
		r.since, r.taken = now, 0
	}
	if r.taken == rationSize {
		r.leftOut++
		return 0, false
	}
	leftOut = r.leftOut
	r.taken, r.leftOut = r.taken+1, 0
	return leftOut, true
}
