package sessionstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WatchConfig says how closely a Watcher follows its sessions.
type WatchConfig struct {
	// VerifyEvery is the pause between two readings of every bound session:
	// an end whose news was lost is found that late at most. Zero means 5 s;
	// negative is an error.
	VerifyEvery time.Duration

	// RelistEvery is the pause between two looks, with a verification, whether
	// the bound sessions are listed under their handles and users, as far as
	// that is known; those that are not are listed again. Up to a quarter of
	// it is added at random. Zero means 1 min; negative is an error.
	RelistEvery time.Duration

	// MaxUnverified is how long a binding lives without a reading that
	// succeeded (Redis away) before it ends with SessionUnverified. Zero
	// means 5 min; negative is an error.
	MaxUnverified time.Duration

	// Readable are the attributes whose change SessionChanged reports, next
	// to the user's. The zero value: none but the user's.
	Readable Patterns

	Logger  *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: none are registered
}

// Listener hears what becomes of a bound session. Its methods are called
// from one goroutine, one at a time per binding and never under a lock; they
// must not block, but may call every method of the binding.
type Listener interface {
	// SessionChanged brings the newest state. States in between may have
	// been left out; a state may repeat what the listener knows, as when the
	// change was its own.
	SessionChanged(*Snapshot)

	// SessionEnded is the last call.
	SessionEnded(Reason)

	// SessionRotated says that the client's cookie must be set again: the
	// session has a new ID, or its cookie another age.
	SessionRotated()

	// SessionExpiring announces the end, once before each: a minute ahead,
	// or a tenth of the idle timeout where that is shorter. Activity may
	// still move the end.
	SessionExpiring(in time.Duration)

	// SessionUnverified is the last call: Redis has been away for longer
	// than MaxUnverified, and the session may have ended meanwhile.
	SessionUnverified()
}

// Watcher keeps the promise that a session's end and changes reach everybody
// who is bound to it, on this replica, whoever caused them: by news, which
// are quick and may be lost, and by reading all bound sessions at a bounded
// interval, which is slower and sure. Sessions bound several times are read
// once. All methods are safe for concurrent use.
type Watcher struct {
	// Fixed after construction.
	factory *Factory
	cfg     WatchConfig
	log     *slog.Logger
	metrics *watchMetrics
	sub     *subscription
	wake    chan struct{} // capacity 1: there is work for the worker
	mail    chan struct{} // capacity 1: there are calls for the deliverer

	// Owned by the worker.
	blind    bool      // the last scan failed
	relistAt time.Time // when to look next whether all are listed

	mu      sync.Mutex // guards the following, and every entry's and binding's state
	entries map[string]*entry
	queue   work
	ready   []*Binding // bindings with calls to deliver, each once
	heard   hearing    // news, gaps and replaced states: what a load under way may have missed
}

// work is what waits for the worker. It is bounded by the number of entries:
// each is in a list once.
type work struct {
	scan    bool     // compare every entry with Redis
	refresh []*entry // load these again
	touch   []*entry // extend the life of these
}

// NewWatcher checks cfg and returns a watcher over f's sessions. It does
// nothing before Run.
func NewWatcher(f *Factory, cfg WatchConfig) (*Watcher, error) {
	if f == nil {
		return nil, errors.New("sessionstore: a watcher needs a factory")
	}
	if cfg.VerifyEvery < 0 || cfg.MaxUnverified < 0 || cfg.RelistEvery < 0 {
		return nil, errors.New("sessionstore: VerifyEvery, RelistEvery and MaxUnverified must not be negative")
	}
	if cfg.VerifyEvery == 0 {
		cfg.VerifyEvery = 5 * time.Second
	}
	if cfg.RelistEvery == 0 {
		cfg.RelistEvery = time.Minute
	}
	if cfg.MaxUnverified == 0 {
		cfg.MaxUnverified = 5 * time.Minute
	}
	w := &Watcher{
		factory: f,
		cfg:     cfg,
		log:     cfg.Logger,
		wake:    make(chan struct{}, 1),
		mail:    make(chan struct{}, 1),
		entries: make(map[string]*entry),
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if w.metrics, err = newWatchMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	w.sub = &subscription{
		rdb:        f.rdb,
		probe:      probeChannel(NewHandle()),
		probeEvery: 3 * time.Second,
		onNews:     w.hear,
		again:      make(chan struct{}, 1),
		onGap:      w.rescan,
		onFailure:  w.subscriptionFailed,
	}
	return w, nil
}

// Run subscribes to the news and verifies the bound sessions until ctx ends;
// it returns nil after all its goroutines have. Nothing is heard by any
// binding before Run or after it. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { w.sub.run(ctx) })
	running.Go(func() { w.work(ctx) })
	running.Go(func() { w.deliver(ctx) })
	running.Wait()

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		e.timer.Stop()
	}
	return nil
}

// Healthy is nil while this watcher is subscribed to the news and has seen
// lately, by a message to itself, that they are delivered.
func (w *Watcher) Healthy() error { return w.sub.healthy() }

// Reverify has every bound session read at once, and a broken subscription made
// again: Redis was away and is back. It does not wait.
func (w *Watcher) Reverify() {
	signal(w.sub.again)
	w.rescan()
}

// rescan has every bound session read at once: news may have been lost.
func (w *Watcher) rescan() {
	w.mu.Lock()
	w.heard.gap()
	w.queue.scan = true
	w.mu.Unlock()
	signal(w.wake)
}

// hear acts on one piece of news. An end is believed as told; for anything
// else the newest state is loaded, once for all news that come meanwhile.
func (w *Watcher) hear(n news) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard.note(n.Handle)
	e := w.entries[n.Handle]
	switch {
	case e == nil:
	case n.What == newsEnded:
		w.endLocked(e, n.Reason)
	default:
		w.refreshLocked(e)
	}
}

// subscriptionFailed notes that the subscription is not there. Only its loss
// is loud, not each attempt to have it back.
func (w *Watcher) subscriptionFailed(cause subscriptionFailure, worked bool, err error) {
	w.metrics.failures.WithLabelValues(string(cause)).Inc()
	level := slog.LevelDebug
	if worked {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "no subscription to session news, subscribing again", "reason", string(cause), "err", err)
}

// signal leaves a wake-up call in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
