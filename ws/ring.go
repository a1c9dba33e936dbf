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
// goes.
type ring struct {
	slots    []atomic.Pointer[frame]
	maxBytes int

	head, tail atomic.Uint64 // places: next to be written, oldest kept
	bytes      int           // owned by the writer
}

// maxRingBytes bounds the memory of one channel of one document.
const maxRingBytes = 16 << 20

func newRing(frames int) *ring {
	return &ring{slots: make([]atomic.Pointer[frame], frames), maxBytes: maxRingBytes}
}

// push adds f as the newest frame. Calls must not be concurrent.
func (r *ring) push(f *frame) {
	head := r.head.Load()
	for r.tail.Load() < head && (head-r.tail.Load() == uint64(len(r.slots)) || r.bytes+len(f.wire) > r.maxBytes) {
		tail := r.tail.Load()
		slot := r.slot(tail)
		r.bytes -= len(slot.Load().wire)
		r.tail.Store(tail + 1)
		slot.Store(nil)
	}
	f.place = head
	r.bytes += len(f.wire)
	r.slot(head).Store(f)
	r.head.Store(head + 1)
}

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

func (r *ring) slot(place uint64) *atomic.Pointer[frame] {
	return &r.slots[place%uint64(len(r.slots))]
}
