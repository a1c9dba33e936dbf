package ws

import (
	"encoding/binary"
	"sync"
)

// wired returns data as one binary frame of a server, as it goes over the
// wire: RFC 6455, section 5.2. Such a frame is not masked, and nothing is
// compressed here, so that it is the same for everybody who gets it.
func wired(data []byte) []byte {
	const finalBinary = 0x80 | 0x2
	b := make([]byte, 0, 10+len(data))
	switch n := len(data); {
	case n <= 125:
		b = append(b, finalBinary, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, finalBinary, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, finalBinary, 127), uint64(n))
	}
	return append(b, data...)
}

// maxBatch is how many bytes of broadcasts go out with one system call, which
// is most of what a delivery costs. It is small, since a client that does not
// read holds that much for as long as its write hangs.
const maxBatch = 16 << 10

var batches = sync.Pool{New: func() any { b := make([]byte, 0, maxBatch); return &b }}

// batch gathers broadcasts for one write. A single one is not copied.
type batch struct {
	wire   []byte
	pooled *[]byte // that wire is in, nil: wire is a frame's own
	frames int
}

// fits reports whether one more frame belongs into the same write.
func (b *batch) fits(wire []byte) bool { return b.frames == 0 || len(b.wire)+len(wire) <= maxBatch }

func (b *batch) add(wire []byte) {
	b.frames++
	switch {
	case b.frames == 1:
		b.wire = wire
		return
	case b.pooled == nil:
		b.pooled = batches.Get().(*[]byte)
		b.wire = append((*b.pooled)[:0], b.wire...)
	}
	b.wire = append(b.wire, wire...)
}

// release gives back what the batch took. It must not be used afterwards.
func (b *batch) release() {
	if b.pooled != nil {
		batches.Put(b.pooled)
	}
}
