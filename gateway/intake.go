package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// intake is a request's body on its way in: no longer, and no slower, than
// the limits allow. Whoever reads it gets an *http.MaxBytesError or an error
// that matches os.ErrDeadlineExceeded.
type intake struct {
	io.ReadCloser
	limit   int64         // bytes; 0: any
	timeout time.Duration // for each bodyStep; 0: any

	// Owned by the one who reads, of which a transport and settleBody may be
	// two. Like net/http's own, this lock is held while reading.
	reading sync.Mutex
	total   int64
	step    int64         // of the present bodyStep
	budget  time.Duration // that is left for it
	err     error

	mu      sync.Mutex // a leaf, but for the connection's deadline
	control *http.ResponseController
	sticky  bool // a deadline that passes while nobody reads ends the body: HTTP/2
	over    bool // the exchange is; the connection's deadline belongs to the next
}

// bodyStep is how much must come within the body timeout: 60 s for each is
// 273 bytes a second, slower than any network and too fast for an attack that
// lives on holding connections.
const bodyStep = 16 << 10

// takeIn puts the limits on the request's body.
func (x *exchange) takeIn(r *http.Request, limits Limits, maxBody int64) {
	x.intake = &intake{
		ReadCloser: r.Body, limit: maxBody, timeout: max(limits.BodyTimeout, 0), budget: limits.BodyTimeout,
		control: http.NewResponseController(x.ResponseWriter), sticky: r.ProtoMajor != 1,
	}
	r.Body = x.intake
}

func (b *intake) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if b.limit > 0 && int64(len(p)) > b.limit-b.total {
		p = p[:b.limit-b.total+1] // one more byte tells whether there is more
	}
	began := time.Now()
	if b.timeout > 0 {
		b.deadline(began.Add(b.budget))
	}
	n, err := b.ReadCloser.Read(p)
	if b.timeout > 0 && (err == io.EOF || b.sticky) {
		b.deadline(time.Time{}) // net/http goes on reading, to see the client leave
	}
	b.total += int64(n)
	if b.step += int64(n); b.step >= bodyStep {
		b.step, b.budget = 0, b.timeout
	} else if b.timeout > 0 {
		b.budget = max(b.budget-time.Since(began), time.Millisecond)
	}
	if b.limit > 0 && b.total > b.limit {
		n -= int(b.total - b.limit)
		err = &http.MaxBytesError{Limit: b.limit}
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// deadline sets the connection's, as long as it is the exchange's. Writers
// without deadlines are those of tests.
func (b *intake) deadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		_ = b.control.SetReadDeadline(t)
	}
}

// end lets go of the connection.
func (b *intake) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// bodyFailure says why reading a request's body failed.
func bodyFailure(err error) reason {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return reasonBodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonBodyTimeout
	default:
		return reasonClientBody
	}
}
