package redisconn

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// The link takes no more bytes. Closing TLS would wait five seconds for each
// connection to say good-bye, and the monitor with it.
func TestDropAllWaitsForNobody(t *testing.T) {
	https := httptest.NewTLSServer(nil)
	certificates := https.TLS.Certificates
	https.Close()
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(time.Hour, time.Second, func() {}, mustMetrics(t))
		for range 3 {
			near, far := net.Pipe() // whose writes wait for a reader
			client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
			shaken := make(chan error)
			go func() {
				shaken <- tls.Server(far, &tls.Config{Certificates: certificates, SessionTicketsDisabled: true}).Handshake()
			}()
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
			g.wrap(client, "")
		}
		began := time.Now()
		g.dropAll()
		if took := time.Since(began); took > 0 {
			t.Errorf("took %s", took)
		}
	})
}
