package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// edgeProofs is how much flows in the tests below.
type edgeProofs struct {
	body int64 // bytes up and down by HTTP
	raw  int64 // bytes each way by raw TCP
}

// counting is a reader of n bytes that look different in each place, or a
// writer that says where they differ from those.
type counting struct{ at, n int64 }

func (c *counting) Read(p []byte) (int, error) {
	if c.at == c.n {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.n-c.at)]
	for i := range p {
		p[i] = byte((c.at + int64(i)) * 2654435761 >> 13)
	}
	c.at += int64(len(p))
	return len(p), nil
}

func (c *counting) Write(p []byte) (int, error) {
	for i := range p {
		if p[i] != byte((c.at+int64(i))*2654435761>>13) {
			return i, fmt.Errorf("byte %d is another", c.at+int64(i))
		}
	}
	c.at += int64(len(p))
	return len(p), nil
}

// throttled lets its reader pause, again and again, so that what is in front
// of it has to wait.
type throttled struct {
	io.Reader
	since int
}

func (r *throttled) Read(p []byte) (int, error) {
	if r.since += len(p); r.since > 8<<20 {
		r.since = 0
		time.Sleep(10 * time.Millisecond) // the throttle; nothing is waited for
	}
	return r.Reader.Read(p)
}

// most watches the replica's memory while something is done and returns by
// how many MiB it grew at most.
func (r *replica) most(done <-chan error) (grew int, err error) {
	r.t.Helper()
	before, top := r.resident(), 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return top - before, err
		case <-tick.C:
			top = max(top, r.resident())
		}
	}
}

// Large bodies through a peer that is slower than the sender: nothing piles up
// in the replica.
func TestLargeBodiesTakeNoMemory(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.Copy(w, &counting{n: edgeSizes.body})
			return
		}
		got := &counting{}
		if _, err := io.Copy(got, &throttled{Reader: r.Body}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, got.at)
	}))
	defer up.Close()
	address := freeAddress(t)
	r := startReplica(t, settings{redis: redistest.Start(t).URL(), plain: true,
		lists: fmt.Sprintf("  - {address: %s, upstream: {targets: [%q]}}\n", address, up.URL)})
	for name, flow := range map[string]func() error{
		"up": func() error {
			res, err := http.Post("http://"+address, "application/octet-stream", &counting{n: edgeSizes.body})
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || string(b) != fmt.Sprint(edgeSizes.body) {
				return fmt.Errorf("%d %s %w", res.StatusCode, b, err)
			}
			return nil
		},
		"down": func() error {
			res, err := http.Get("http://" + address)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			got := &counting{}
			if _, err := io.Copy(got, &throttled{Reader: res.Body}); err != nil || got.at != edgeSizes.body {
				return fmt.Errorf("%d bytes, %w", got.at, err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			go func() { done <- flow() }()
			grew, err := r.most(done)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB: the replica grew by %d MiB", edgeSizes.body>>20, grew)
			if grew >= 32 {
				t.Errorf("the replica grew by %d MiB", grew)
			}
		})
	}
}

// Raw TCP both ways at once, each with a reader that pauses, and each closed
// when its sender is done.
func TestLargeRawStreams(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	flow := func(c *net.TCPConn) error {
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(c, &counting{n: edgeSizes.raw})
			if err == nil {
				err = c.CloseWrite()
			}
			sent <- err
		}()
		got := &counting{}
		_, err := io.Copy(got, &throttled{Reader: c})
		if err == nil && got.at != edgeSizes.raw {
			err = fmt.Errorf("%d bytes arrived", got.at)
		}
		if sendErr := <-sent; err == nil {
			err = sendErr
		}
		return err
	}
	target := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = flow(c.(*net.TCPConn))
			_ = c.Close()
		}
		target <- err
	}()
	address := freeAddress(t)
	r := startReplica(t, settings{redis: redistest.Start(t).URL(), plain: true,
		lists: fmt.Sprintf("  - {address: %s, tcp: {targets: [%q]}}\n", address, l.Addr())})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		err := flow(c.(*net.TCPConn))
		if targetErr := <-target; err == nil {
			err = targetErr
		}
		done <- err
	}()
	grew, err := r.most(done)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB each way: the replica grew by %d MiB", edgeSizes.raw>>20, grew)
	if grew >= 32 {
		t.Errorf("the replica grew by %d MiB", grew)
	}
}
