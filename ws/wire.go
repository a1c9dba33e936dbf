package ws

import (
	"encoding/binary"
	"sync"
)

// First bytes of a frame that is all of a message: RFC 6455, section 5.2.
const (
	wholeText   = 0x80 | 0x1
	wholeBinary = 0x80 | 0x2
	wholePing   = 0x80 | 0x9
	wholePong   = 0x80 | 0xa
	maxHead     = 10 // bytes before those of the message
)

// wired returns data as one binary frame of a server, as it goes over the
// wire. Such a frame is not masked, and nothing is compressed here, so that it
// is the same for everybody who gets it.
func wired(data []byte) []byte {
	return append(appendHead(make([]byte, 0, maxHead+len(data)), wholeBinary, len(data)), data...)
}

// appendHead appends what comes before the n bytes of a message.
func appendHead(b []byte, first byte, n int) []byte {
	switch {
	case n <= 125:
		return append(b, first, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
}

// maxBatch is how many bytes go out with one system call, which is most of
// what a delivery costs. It is small, since a client that does not read holds
// that much for as long as its write hangs.
const maxBatch = 16 << 10

var batches = sync.Pool{New: func() any { b := make([]byte, 0, maxBatch); return &b }}

// batch gathers frames for one write. A single broadcast is not copied.
type batch struct {
	wire   []byte
	pooled *[]byte // that wire is in, nil: wire is a frame's own
	frames int
}

// fits reports whether one more frame belongs into the same write.
func (b *batch) fits(wire []byte) bool { return b.frames == 0 || len(b.wire)+len(wire) <= maxBatch }

func (b *batch) add(wire []byte) {
	b.frames++
	if b.frames == 1 {
		b.wire = wire
		return
	}
	b.own()
	b.wire = append(b.wire, wire...)
}

// fitsText reports the same of a reply that is not framed yet. A long one is
// none of a batch: it would have to be copied.
func (b *batch) fitsText(data []byte) bool { return len(b.wire)+maxHead+len(data) <= maxBatch }

func (b *batch) addText(data []byte) {
	b.frames++
	b.own()
	b.wire = append(appendHead(b.wire, wholeText, len(data)), data...)
}

// own has the wire in a buffer of the batch's own.
func (b *batch) own() {
	if b.pooled == nil {
		b.pooled = batches.Get().(*[]byte)
		b.wire = append((*b.pooled)[:0], b.wire...)
	}
}

// release gives back what the batch took. It must not be used afterwards.
func (b *batch) release() {
	if b.pooled != nil {
		batches.Put(b.pooled)
	}
}
