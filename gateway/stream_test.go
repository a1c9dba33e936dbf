package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Whatever follows a body that is malformed or was not wanted is never read as
// a request, also when the response was on its way by then.
func TestNoRequestIsSmuggledInABody(t *testing.T) {
	var smuggled atomic.Bool
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		switch r.URL.Path {
		case "/smuggled":
			smuggled.Store(true)
		case "/refuse":
			w.WriteHeader(http.StatusForbidden)
		case "/early":
			_, _ = io.WriteString(w, "early")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
		default:
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	const next = "GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, c := range []struct{ head, body string }{
		{"Transfer-Encoding: chunked", "zz\r\n"},
		{"Transfer-Encoding: chunked", "3\r\nabc\r\nzz\r\n"},
		{"Transfer-Encoding: chunked", "3\r\nabcde\r\n"},
		{"Transfer-Encoding: chunked", "0\r\nmalformed trailer\r\n"},
		{"Content-Length: 1000000", ""},
	} {
		for _, path := range []string{"/late", "/early", "/refuse"} {
			for _, answeredFirst := range []bool{false, true} {
				if answeredFirst && path == "/late" {
					continue // it never is
				}
				conn := dial(t, g.address())
				_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+c.head+"\r\n\r\n")
				if answeredFirst {
					if line := readLine(t, bufio.NewReaderSize(conn, 16)); !strings.HasPrefix(line, "HTTP/1.1 ") {
						t.Fatal(line)
					}
				}
				_, _ = io.WriteString(conn, c.body+next)
				if c.body == "" {
					_ = conn.CloseWrite()
				}
				_, _ = io.ReadAll(conn)
				if smuggled.Swap(false) {
					t.Errorf("%s, %s %q, answered first %t: reached the upstream as two requests", path, c.head, c.body, answeredFirst)
				}
			}
		}
	}
}

// A body that was not wanted costs the client no connection if it is small.
func TestUnwantedSmallBody(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	c := dial(t, g.address())
	r := bufio.NewReader(c)
	for range 20 {
		_, _ = io.WriteString(c, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusForbidden {
			t.Fatalf("%d %v", res.StatusCode, err)
		}
	}
}

// What an upstream sends piece by piece arrives piece by piece, whatever kind
// of body it is.
func TestStreamsArrivePieceByPiece(t *testing.T) {
	for name, header := range map[string][2]string{
		"events": {"Content-Type", "text/event-stream"}, "sized": {"Content-Length", "12"}, "chunked": {"X-No", "length"},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan string)
			up := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(header[0], header[1])
				for piece := range next {
					_, _ = io.WriteString(w, piece+"\n")
					_ = http.NewResponseController(w).Flush()
				}
			})
			g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
			c := dial(t, g.address())
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			r := bufio.NewReader(c)
			next <- "first"
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body := bufio.NewReader(res.Body)
			if got := readLine(t, body); got != "first" {
				t.Errorf("got %q", got)
			}
			next <- "again"
			if got := readLine(t, body); got != "again" {
				t.Errorf("got %q", got)
			}
			close(next)
			if _, err := body.ReadByte(); err != io.EOF {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// noise is a reader of n pseudo-random bytes that hashes what was read.
func noise(n int64) (io.Reader, hash.Hash) {
	h := sha256.New()
	return io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), n), h), h
}

func TestLargeBodiesBothWays(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		// Both ways at once: back-pressure must not turn into a deadlock.
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	for _, size := range []int64{0, 1, 1 << 20, 64 << 20} {
		body, sent := noise(size)
		res, err := http.Post(g.url(), "application/octet-stream", io.NopCloser(body))
		if err != nil {
			t.Fatal(err)
		}
		got := sha256.New()
		n, err := io.Copy(got, res.Body)
		_ = res.Body.Close()
		if err != nil || n != size || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
			t.Errorf("%d bytes: got %d, %v", size, n, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "byte counts", func() bool {
		in := testutil.ToFloat64(g.metrics.bytes.WithLabelValues("in"))
		out := testutil.ToFloat64(g.metrics.bytes.WithLabelValues("out"))
		return in > 65<<20 && in < 67<<20 && out > 65<<20 && out < 67<<20
	})
}

func TestExpectContinueAndTrailers(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		w.Header().Set("Trailer", "X-End")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-End", "yes")
	})
	g := start(t, toUpstream(Upstream{Targets: []string{up.URL}}))
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\nTE: trailers\r\n\r\n")
	r := bufio.NewReader(c)
	if line := readLine(t, r); line != "HTTP/1.1 100 Continue" {
		t.Fatal(line)
	}
	for readLine(t, r) != "" {
	}
	_, _ = io.WriteString(c, "body")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != "body" || res.Trailer.Get("X-End") != "yes" {
		t.Errorf("%q %v %v", b, err, res.Trailer)
	}
	// Refused without reading: the client need not send its body.
	c = dial(t, g.address())
	_, _ = io.WriteString(c, "POST /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
	if line := readLine(t, bufio.NewReader(c)); line != "HTTP/1.1 413 Request Entity Too Large" {
		t.Error(line)
	}
}
