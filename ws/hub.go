package ws

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Hub owns this replica's document sockets. All its methods are safe for
// concurrent use.
type Hub struct {
	// Fixed after construction.
	cfg     Config
	origins Origins
	log     *slog.Logger
	metrics *metrics
	ctx     context.Context // ends last, in Close
	stop    context.CancelFunc

	allowances *allowances
	shifts     *shifts
	crew       *crew

	available atomic.Bool // Redis answers and subscriptions deliver

	connections sync.WaitGroup // one for each reader
	closings    sync.WaitGroup // one for each document that closes
	absences    sync.WaitGroup // one for each member whose return is waited for

	mu        sync.Mutex        // guards the following; nothing is locked while it is held
	conns     map[string]socket // by ID
	usage     usage
	door      door
	admitted  int // connections and upgrades under way
	peak      int
	documents map[string]*document
	draining  bool
	closed    bool
	empty     chan struct{} // closed when the last connection of a draining hub has gone
}

// socket is what the hub knows of a connection: to a document, or to a side of
// a pair. Its methods do not block.
type socket interface {
	key() (id, cookie string)    // cookie: session ID of the upgrade's, "" without
	close(closing)               // decides to close it
	sendOff(after time.Duration) // has it closed for a restart, later
	wake()                       // whether Redis is available has changed
	info() ConnectionInfo
}

// NewHub checks cfg and returns a hub. It counts on Redis until SetAvailable
// says otherwise.
func NewHub(cfg Config) (*Hub, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Hub{
		cfg:        cfg,
		log:        cfg.Logger,
		conns:      make(map[string]socket),
		usage:      newUsage(),
		allowances: newAllowances(cfg.Limits),
		shifts:     newShifts(),
		crew:       newCrew(),
		door:       door{bucket: newBucket(cfg.Limits.UpgradesPerSecond)},
		documents:  make(map[string]*document),
		empty:      make(chan struct{}),
	}
	if h.origins, err = ParseOrigins(cfg.Origins); err != nil {
		return nil, fmt.Errorf("ws: %w", err)
	}
	if h.metrics, err = newMetrics(cfg.Metrics, h); err != nil {
		return nil, fmt.Errorf("ws: metrics: %w", err)
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.available.Store(true)
	return h, nil
}

// SetAvailable says whether Redis answers and subscriptions deliver. While
// they do not, upgrades are refused with 503 and operations with
// UNAVAILABLE. Authenticated connections are told of every change.
func (h *Hub) SetAvailable(up bool) {
	if h.available.Swap(up) == up {
		return
	}
	for _, c := range h.live() {
		c.wake()
	}
}

// Connections lists the live connections, oldest first.
func (h *Hub) Connections() []ConnectionInfo {
	live := h.live()
	list := make([]ConnectionInfo, len(live))
	for i, c := range live {
		list[i] = c.info()
	}
	slices.SortFunc(list, func(a, b ConnectionInfo) int { return a.Since.Compare(b.Since) })
	return list
}

// CountBySession returns how many authenticated connections the session with
// this handle has here.
func (h *Hub) CountBySession(handle string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.usage.sessions[handle]
}

// Counts returns how many connections there are, in whatever state, and the
// most there have been at once.
func (h *Hub) Counts() (current, peak int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns), h.peak
}

// documentIfOpen returns the document if somebody here has joined it.
func (h *Hub) documentIfOpen(id string) *document {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.documents[id]
}

func (h *Hub) live() []socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.conns))
}

func (h *Hub) open() []*document {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.documents))
}

func (h *Hub) openDocuments() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.documents)
}

// register counts a connection from its upgrade on, before it has
// authenticated. It reports false when the hub has closed meanwhile.
func (h *Hub) register(s socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	id, _ := s.key()
	h.conns[id] = s
	h.peak = max(h.peak, len(h.conns))
	h.connections.Add(1)
	return true
}

// login notes that a connection has authenticated for the session.
func (h *Hub) login(handle string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.usage.sessions[handle]++
}

// unregister takes back register, and login where handle is not empty.
func (h *Hub) unregister(s socket, handle string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, cookie := s.key()
	delete(h.conns, id)
	h.discountLocked(cookie, handle)
}

// discountLocked takes back what was counted for an admission.
func (h *Hub) discountLocked(cookie, handle string) {
	h.usage.leave(cookie, handle)
	if h.admitted--; h.admitted == 0 && h.draining {
		close(h.empty)
	}
}

// openDocument returns the document and holds it open until release. The
// first who asks opens it for all who ask meanwhile.
func (h *Hub) openDocument(ctx context.Context, id string) (*document, error) {
	for {
		h.mu.Lock()
		d := h.documents[id]
		first := d == nil
		last := d != nil && d.refs == 0
		switch {
		case first:
			d = newDocument(h, id)
			h.documents[id] = d
		case !last:
			d.refs++
		}
		h.mu.Unlock()
		if last { // it is closing; the next life begins after that
			select {
			case <-d.gone:
				continue
			case <-ctx.Done():
				return nil, ErrUnavailable
			}
		}
		if first {
			d.open()
		}
		err := ErrUnavailable
		select {
		case <-d.ready:
			err = d.err
		case <-ctx.Done():
		}
		if err != nil {
			h.release(d)
			return nil, err
		}
		return d, nil
	}
}

// release gives back what openDocument returned. The last one closes it.
func (h *Hub) release(d *document) {
	h.mu.Lock()
	d.refs--
	last := d.refs == 0
	if last {
		h.closings.Add(1)
	}
	h.mu.Unlock()
	if !last {
		return
	}
	go func() {
		defer h.closings.Done()
		d.close()
		h.mu.Lock()
		delete(h.documents, d.id)
		h.mu.Unlock()
		close(d.gone)
	}()
}

// Close closes what is left with 1001 and returns after every goroutine of
// the hub has. Departures that Redis does not take within two seconds are
// left to the lease of this replica.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	for _, c := range h.live() {
		c.close(closeGoingAway)
	}
	h.connections.Wait()
	for _, d := range h.open() {
		d.bequeath()
	}
	h.absences.Wait()
	h.shifts.working.Wait()
	h.crew.close()
	last := time.AfterFunc(2*time.Second, h.stop)
	defer last.Stop()
	h.closings.Wait()
	h.stop()
	return nil
}

func newConnectionID() string { return strings.ToLower(rand.Text()) }

// colorOf derives a colour from a user: the same on every replica, dark
// enough to be read on white.
func colorOf(user string) string {
	sum := fnv.New32a()
	sum.Write([]byte(user)) // never fails
	hue := float64(sum.Sum32()%360) / 60
	const saturation, lightness = 0.65, 0.40
	chroma := (1 - math.Abs(2*lightness-1)) * saturation
	x := chroma * (1 - math.Abs(math.Mod(hue, 2)-1))
	rgb := [6][3]float64{{chroma, x, 0}, {x, chroma, 0}, {0, chroma, x}, {0, x, chroma}, {x, 0, chroma}, {chroma, 0, x}}[int(hue)]
	channel := func(v float64) int { return int(math.Round((v + lightness - chroma/2) * 255)) }
	return fmt.Sprintf("#%02x%02x%02x", channel(rgb[0]), channel(rgb[1]), channel(rgb[2]))
}
