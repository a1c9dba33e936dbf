package sessionstore

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// relist has the bound sessions listed again whose record or place in the
// user's index was lost, when it is time to look. Until then nobody could
// list or revoke them. A user who is idle on an open socket writes neither.
func (w *Watcher) relist(ctx context.Context) {
	now := time.Now()
	if now.Before(w.relistAt) || w.blind {
		return
	}
	// Jitter keeps the replicas from looking all at once.
	w.relistAt = now.Add(w.cfg.RelistEvery + rand.N(w.cfg.RelistEvery/4+1))

	w.mu.Lock()
	snapshots := make([]*Snapshot, 0, len(w.entries))
	for _, e := range w.entries {
		snapshots = append(snapshots, e.snapshot)
	}
	w.mu.Unlock()
	for chunk := range slices.Chunk(snapshots, verifyChunk) {
		looking, cancel := context.WithTimeout(ctx, time.Second)
		relisted, err := w.factory.relist(looking, chunk)
		cancel()
		w.metrics.relisted.Add(float64(relisted))
		if err != nil {
			w.log.Debug("bound sessions not looked up in the index as a whole", "err", err)
			return // the next look comes soon enough
		}
	}
}
