package gateway

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// keyPair is a listener's certificate and key, read again when the files
// change. Safe for concurrent use.
type keyPair struct {
	// Fixed after construction.
	files TLSFiles
	log   *slog.Logger

	current atomic.Pointer[tls.Certificate]
	seen    atomic.Pointer[string] // what the files were when they were last read, rightly or not
	checked atomic.Int64           // when somebody last looked, Unix nanoseconds
}

// certificateCheckEvery bounds how long a certificate that was replaced is
// still shown.
const certificateCheckEvery = time.Second

func newKeyPair(files TLSFiles, log *slog.Logger) (*keyPair, error) {
	c := &keyPair{files: files, log: log}
	stamp := c.stamp()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, err
	}
	c.seen.Store(&stamp)
	c.current.Store(&pair)
	c.checked.Store(time.Now().UnixNano())
	return c, nil
}

// get is a tls.Config's GetCertificate: the pair in the files, as of a second
// ago. While they hold none that fits together, which may be a moment between
// writing the one and the other, the old one stays.
func (c *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	last, now := c.checked.Load(), time.Now().UnixNano()
	if now-last < int64(certificateCheckEvery) || !c.checked.CompareAndSwap(last, now) {
		return c.current.Load(), nil
	}
	stamp := c.stamp()
	if stamp == *c.seen.Load() {
		return c.current.Load(), nil
	}
	c.seen.Store(&stamp)
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		c.log.Warn("changed certificate cannot be used, the old one stays", "cert", c.files.Cert, "err", err)
		return c.current.Load(), nil
	}
	c.current.Store(&pair)
	c.log.Info("certificate changed", "cert", c.files.Cert, "until", pair.Leaf.NotAfter)
	return &pair, nil
}

// stamp tells one state of the files from another.
func (c *keyPair) stamp() string {
	describe := func(name string) string {
		info, err := os.Stat(name)
		if err != nil {
			return "none"
		}
		return fmt.Sprint(info.ModTime().UnixNano(), info.Size(), info.Sys())
	}
	return describe(c.files.Cert) + " " + describe(c.files.Key)
}
