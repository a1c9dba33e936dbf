package ws

import (
	"bufio"
	"sync"
)

// Read buffers. Most connections are idle, and have none meanwhile; where it
// cannot be waited for input without one it is small.
const (
	readBuffer = 512
	lentBuffer = 4 << 10
)

var readBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, lentBuffer) }}

// lentReader is a bufio.Reader whose buffer comes and goes. The library has a
// pointer to what it reads from, and no interest in it between two messages.
type lentReader struct {
	*bufio.Reader               // stays the same; the zero Reader while nothing is lent
	lent          *bufio.Reader // whose buffer it has, nil without one
}

// newLentReader returns one that has a buffer.
func newLentReader(from *wire) *lentReader {
	r := &lentReader{Reader: new(bufio.Reader)}
	r.borrow(from)
	return r
}

// borrow sees to it that there is a buffer to read with.
func (r *lentReader) borrow(from *wire) {
	if r.lent == nil {
		r.lent = readBuffers.Get().(*bufio.Reader)
		r.lent.Reset(from)
		*r.Reader = *r.lent
	}
}

// giveBack parts with the buffer, and what may be in it.
func (r *lentReader) giveBack() {
	if r.lent != nil {
		*r.lent = *r.Reader
		r.lent.Reset(nil)
		readBuffers.Put(r.lent)
		r.lent, *r.Reader = nil, bufio.Reader{}
	}
}
