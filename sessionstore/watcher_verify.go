package sessionstore

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// verifyChunk is how many sessions are compared by one command, and
// loadsAtOnce how many are loaded side by side.
const (
	verifyChunk = 250
	loadsAtOnce = 8
)

// work does what waits for the worker, and compares every entry with Redis
// each VerifyEvery, until ctx ends.
func (w *Watcher) work(ctx context.Context) {
	tick := time.NewTicker(w.cfg.VerifyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.mu.Lock()
			w.queue.scan = true
			w.mu.Unlock()
		case <-w.wake:
		}
		w.round(ctx)
	}
}

// patience is how long the worker waits for one answer. A connection whose
// peer forgot it never answers; what waits behind it must still be done within
// VerifyEvery and a second.
func (w *Watcher) patience() time.Duration { return min(time.Second, w.cfg.VerifyEvery/2) }

// round does all work that waits now.
func (w *Watcher) round(ctx context.Context) {
	if w.takeScan() {
		w.scan(ctx)
		w.endUnverified()
		w.relist(ctx)
	}
	w.refreshAll(ctx)
	w.touchAll(ctx)
}

func (w *Watcher) takeScan() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	scan := w.queue.scan
	w.queue.scan = false
	return scan
}

// scan compares every entry's bytes with those in Redis, cheaply; those that
// differ, ended or are missing are left to refresh.
func (w *Watcher) scan(ctx context.Context) {
	w.mu.Lock()
	entries := make([]*entry, 0, len(w.entries))
	for _, e := range w.entries {
		entries = append(entries, e)
	}
	w.mu.Unlock()
	if len(entries) == 0 {
		return
	}

	began := time.Now()
	if err := w.verify(ctx, entries); err != nil {
		if !w.blind {
			w.log.Warn("bound sessions cannot be verified", "err", err)
		}
		w.blind = true
		return
	}
	w.blind = false
	w.metrics.verify.Observe(time.Since(began).Seconds())
}

// verify compares entries with Redis, chunk by chunk; its error is of the first
// chunk that was not compared as a whole. In a Cluster what one master does
// not answer says nothing of the others, and must not hold them up. Anywhere
// else Redis is away then: the next chunk would only wait as long.
func (w *Watcher) verify(ctx context.Context, entries []*entry) error {
	comparing, giveUp := errgroup.WithContext(ctx)
	comparing.SetLimit(1)
	if _, cluster := w.factory.rdb.(*redis.ClusterClient); cluster {
		comparing.SetLimit(loadsAtOnce)
		giveUp = ctx
	}
	for chunk := range slices.Chunk(entries, verifyChunk) {
		comparing.Go(func() error {
			if err := giveUp.Err(); err != nil {
				return err
			}
			left, err := w.compareWithin(ctx, w.patience(), chunk)
			if late := net.Error(nil); errors.As(err, &late) && late.Timeout() { // that connection is given up: once more
				_, err = w.compareWithin(ctx, time.Second, left)
			}
			return err
		})
	}
	return comparing.Wait()
}

func (w *Watcher) compareWithin(ctx context.Context, d time.Duration, chunk []*entry) (left []*entry, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return w.compare(ctx, chunk)
}

// compare returns the entries that Redis said nothing about, and why.
func (w *Watcher) compare(ctx context.Context, chunk []*entry) (left []*entry, err error) {
	refs := make([]ref, len(chunk))
	w.mu.Lock()
	for i, e := range chunk {
		refs[i] = e.snapshot.ref
	}
	w.mu.Unlock()

	asked := time.Now()
	held, err := w.factory.peek(ctx, refs)

	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range chunk {
		switch lives := held[i].found && held[i].stone == ""; {
		case !held[i].seen:
			left = append(left, e)
		case lives && held[i].value == e.snapshot.held:
			e.verified = asked
		default:
			w.refreshLocked(e)
		}
	}
	return left, err
}

// refreshAll loads the entries that wait for it.
func (w *Watcher) refreshAll(ctx context.Context) {
	w.mu.Lock()
	entries := w.queue.refresh
	w.queue.refresh = nil
	w.mu.Unlock()

	var loading errgroup.Group
	loading.SetLimit(loadsAtOnce)
	for _, e := range entries {
		loading.Go(func() error {
			w.refresh(ctx, e)
			return nil
		})
	}
	_ = loading.Wait() // never an error: what went wrong is e's own affair
}

// refresh loads e's session again, wherever rotation took it, and acts on
// what it finds.
func (w *Watcher) refresh(ctx context.Context, e *entry) {
	w.mu.Lock()
	e.refreshing = false
	ref, version, over := e.snapshot.ref, e.version, e.over
	w.mu.Unlock()
	if over {
		return
	}

	reading, cancel := context.WithTimeout(ctx, w.patience())
	defer cancel()
	s, err := w.factory.follow(reading, ref)
	if reason := w.learn(e, version, s, err); errors.Is(err, ErrNotFound) && reason != "" {
		losing, cancel := context.WithTimeout(ctx, time.Second) // the index may be on a master that is away
		defer cancel()
		w.factory.lose(losing, e.handle, reason)
	}
}

// learn acts on what was read of e's session since that version. It returns
// why the session ended, if it did.
func (w *Watcher) learn(e *entry, version uint64, s *Session, err error) Reason {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.over:
	case err != nil:
		w.learnLocked(e, err)
	case e.version != version:
		w.refreshLocked(e) // replaced meanwhile: which state is newer only Redis knows
	default:
		w.replaceLocked(e, s.Snapshot(), now)
		w.warnLocked(e, now)
	}
	return e.last.ended
}

// learnLocked acts on what the failure to load or save e's session tells
// about it.
func (w *Watcher) learnLocked(e *entry, err error) {
	now := time.Now()
	var ended *EndedError
	switch {
	case e.over:
	case errors.As(err, &ended) && ended.Reason != ReasonRotated:
		w.endLocked(e, ended.Reason)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrEnded):
		w.endLocked(e, e.whyMissing(now))
	case !now.Before(e.snapshot.ExpiresAt()):
		w.endLocked(e, ReasonExpired) // that is true whatever Redis would say
	case errors.Is(err, ErrUndecodable):
		w.log.Warn("a bound session cannot be decoded", "session", e.handle, "err", err)
		e.verified = now // it lives, though its state cannot be told
		e.timer.Reset(w.cfg.VerifyEvery)
	default:
		e.timer.Reset(w.cfg.VerifyEvery) // Redis did not answer: try again
	}
}

// whyMissing says why Redis has neither the session nor the mark of its end:
// its time ran out, as far as this replica knows, or somebody removed it.
func (e *entry) whyMissing(now time.Time) Reason {
	slack := min(time.Second, e.w.factory.cfg.IdleTimeout/10)
	if now.After(e.endsAt().Add(-slack)) {
		return ReasonExpired
	}
	return ReasonGone
}

// due is called by e's timer: the session may be about to end.
func (e *entry) due() {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.w.refreshLocked(e)
}

// endUnverified ends the entries that Redis has not confirmed for too long.
func (w *Watcher) endUnverified() {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if now.Sub(e.verified) > w.cfg.MaxUnverified {
			w.unverifiedLocked(e)
		}
	}
}

// touchAll extends the life of the entries with activity, in one batch. Those
// that Redis said nothing about wait for the next round.
func (w *Watcher) touchAll(ctx context.Context) {
	w.mu.Lock()
	entries := w.queue.touch
	w.queue.touch = nil
	entries = slices.DeleteFunc(entries, func(e *entry) bool { return e.over })
	snapshots := make([]*Snapshot, len(entries))
	for i, e := range entries {
		snapshots[i] = e.snapshot
	}
	w.mu.Unlock()
	if len(entries) == 0 {
		return
	}

	writing, cancel := context.WithTimeout(ctx, w.patience())
	defer cancel()
	asked := time.Now()
	lives, err := w.factory.touchAll(writing, snapshots)
	if err != nil {
		w.log.Debug("activity of bound sessions was not recorded as a whole yet", "err", err)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range entries {
		if !lives[i].known {
			w.queue.touch = append(w.queue.touch, e)
			continue
		}
		e.touching = false
		w.touchedLocked(e, snapshots[i], lives[i].left, asked)
	}
}

// touchedLocked acts on what was left of e's session at asked, when it was
// touched as s. That it has ended, or been replaced, is for a load to tell.
func (w *Watcher) touchedLocked(e *entry, s *Snapshot, left time.Duration, asked time.Time) {
	if e.over {
		return
	}
	if left < 0 || e.snapshot.ref != s.ref {
		w.refreshLocked(e)
		return
	}
	now := time.Now()
	e.snapshot = e.snapshot.endingAt(asked.Add(left))
	if asked.After(e.verified) {
		e.verified = asked
	}
	w.armLocked(e, now)
	w.warnLocked(e, now)
}
