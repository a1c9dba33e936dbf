package ws

import "sync/atomic"

// frame is one broadcast, encoded once for all who receive it.
type frame struct {
	place    uint64   // in the ring's endless count
	position Position // where the log stands with it
	wire     []byte   // as it is written; nil: not a frame but news: what came before position has to be read again
	lost     uint64   // with the news: how many operations are known to be lost
}

// ring holds the newest broadcasts of one channel of a document. One writer
// pushes (the document, under its lock); any number of readers follow, each
// with a cursor of its own and without a lock, so that a slow reader costs
// the others nothing. A reader that is overtaken has lost the oldest.
//
// It is bounded in frames and in bytes: when either is exceeded the oldest
// goes. It starts small and grows up to its bound: most documents have few
// members, and nobody of them is behind.
type ring struct {
	maxFrames, maxBytes int // fixed

	slots      atomic.Pointer[slots]
	head, tail atomic.Uint64 // places: next to be written, oldest kept
	bytes      int           // owned by the writer
}

// slots hold the frame of a place at that place modulo their number.
type slots []atomic.Pointer[frame]

func (s slots) at(place uint64) *atomic.Pointer[frame] { return &s[place%uint64(len(s))] }

const (
	firstSlots   = 16
	maxRingBytes = 16 << 20 // the memory of one channel of one document
)

func newRing(frames int) *ring {
	r := &ring{maxFrames: frames, maxBytes: maxRingBytes}
	s := make(slots, min(firstSlots, frames))
	r.slots.Store(&s)
	return r
}

// push adds f as the newest frame. Calls must not be concurrent, with trim
// neither.
func (r *ring) push(f *frame) {
	head, tail := r.head.Load(), r.tail.Load()
	for tail < head && (head-tail == uint64(r.maxFrames) || r.bytes+len(f.wire) > r.maxBytes) {
		tail++
		r.trim(tail)
	}
	slots := *r.slots.Load()
	if head-tail == uint64(len(slots)) {
		slots = r.grow(slots, tail, head)
	}
	f.place = head
	r.bytes += len(f.wire)
	slots.at(head).Store(f)
	r.head.Store(head + 1)
}

// grow doubles the number of slots. Readers that still use the old ones find
// the same frames there.
func (r *ring) grow(old slots, tail, head uint64) slots {
	more := make(slots, min(2*len(old), r.maxFrames))
	for place := tail; place < head; place++ {
		more.at(place).Store(old.at(place).Load())
	}
	r.slots.Store(&more)
	return more
}

// trim forgets the frames before place, which may be no later than the head.
// Readers that have not read them have lost them.
func (r *ring) trim(place uint64) {
	slots := *r.slots.Load()
	for tail := r.tail.Load(); tail < place; tail++ {
		slot := slots.at(tail)
		r.bytes -= len(slot.Load().wire)
		r.tail.Store(tail + 1)
		slot.Store(nil)
	}
}

// empty reports whether nothing is kept. It must not be called while push or
// trim run.
func (r *ring) empty() bool { return r.tail.Load() == r.head.Load() }

// at returns the frame for a reader at cursor, nil when there is none yet,
// and how many frames the reader has lost before it.
func (r *ring) at(cursor uint64) (f *frame, lost uint64) {
	for place := cursor; place < r.head.Load(); {
		if f := r.slot(place).Load(); f != nil && f.place == place {
			return f, place - cursor
		}
		// Overwritten; by now the tail is past it.
		place = max(place+1, r.tail.Load())
	}
	return nil, 0
}

func (r *ring) slot(place uint64) *atomic.Pointer[frame] { return r.slots.Load().at(place) }
