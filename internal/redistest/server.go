package redistest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

const (
	startTimeout = 20 * time.Second // a loaded CI machine is slow
	stopTimeout  = 5 * time.Second  // SIGTERM; after it SIGKILL
)

// Server is one Redis. Its methods are for the test's goroutine: they report
// failures with t.Fatal.
type Server struct {
	t      testing.TB
	port   int
	bus    int                  // of a cluster node; 0: none
	mini   *miniredis.Miniredis // nil: a redis-server process
	args   []string             // all arguments of redis-server
	tls    *tls.Config          // nil: plain TCP
	caFile string

	proc *process // nil: stopped
}

// Each runs fn as the subtests "redis" (a process of its own) and "miniredis".
func Each(t *testing.T, fn func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) { fn(t, Start(t)) })
	t.Run("miniredis", func(t *testing.T) { fn(t, Mini(t)) })
}

// Start runs redis-server on a free port of 127.0.0.1 and returns when it
// answers. It keeps nothing on disk unless args, which go to redis-server
// after the defaults ("--appendonly", "yes"), say so.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t}
	dir := t.TempDir()
	s.launch(func(port string) []string { return append(defaults(dir, "--port", port), args...) })
	return s
}

// Mini starts a miniredis on a free port, with its clock running.
func Mini(t testing.TB) *Server {
	t.Helper()
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.Start(); err != nil {
		t.Fatalf("start miniredis: %v", err)
	}
	t.Cleanup(m.Close)
	port, err := strconv.Atoi(m.Port())
	if err != nil {
		t.Fatalf("miniredis port: %v", err)
	}
	return &Server{t: t, port: port, mini: m}
}

// TLS is Start for a redis-server that speaks TLS only, with a certificate for
// 127.0.0.1 and localhost by an authority made for this test. URL names the
// authority in ?ca_file=.
func TLS(t testing.TB, args ...string) *Server {
	t.Helper()
	certs := newCertificates(t)
	s := &Server{t: t, tls: certs.client, caFile: certs.caFile}
	dir := t.TempDir()
	s.launch(func(port string) []string {
		return append(append(defaults(dir, "--tls-port", port),
			"--port", "0",
			"--tls-cert-file", certs.certFile,
			"--tls-key-file", certs.keyFile,
			"--tls-ca-cert-file", certs.caFile,
			"--tls-auth-clients", "no",
		), args...)
	})
	return s
}

// defaults are redis-server's arguments unless a test says otherwise.
func defaults(dir string, more ...string) []string {
	return append([]string{
		"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", dir,
	}, more...)
}

// launch starts the process on a port that was free a moment ago, and tries
// another when somebody was faster.
func (s *Server) launch(args func(port string) []string) {
	s.t.Helper()
	s.t.Cleanup(s.Kill)
	var err error
	for range 5 {
		s.port = freePort(s.t)
		s.args = args(strconv.Itoa(s.port))
		if err = s.run(isReady); !errors.Is(err, errExited) {
			break
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// run starts the process and waits until it answers as it should.
func (s *Server) run(fits func(answer error) (bool, error)) error {
	proc, err := startProcess("redis-server", s.args)
	if err != nil {
		return err
	}
	s.proc = proc
	if err := s.await(proc, fits); err != nil {
		s.Kill()
		return fmt.Errorf("%w\nredis-server said:\n%s", err, proc.output.String())
	}
	return nil
}

func (s *Server) await(proc *process, fits func(answer error) (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		select {
		case <-proc.exited:
			return errExited
		case <-ctx.Done():
			return errors.New("redis-server does not answer")
		case <-time.After(10 * time.Millisecond):
		}
		// A client of its own for each attempt: after many failed dials go-redis
		// stops dialling for a second, in a goroutine that outlives the client.
		rdb := redis.NewClient(s.options())
		err := rdb.Ping(ctx).Err()
		_ = rdb.Close()
		if ok, err := fits(err); ok || err != nil {
			return err
		}
	}
}

// isReady: NOAUTH, NOPERM and the like are answers; LOADING is "not yet".
func isReady(answer error) (bool, error) {
	reply := redis.Error(nil)
	return answer == nil || errors.As(answer, &reply) && !isLoading(answer), nil
}

func isLoading(answer error) bool {
	reply := redis.Error(nil)
	return errors.As(answer, &reply) && strings.HasPrefix(reply.Error(), "LOADING")
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the URL of database 0: redis://…, or rediss://…?ca_file=… of a
// server made by TLS.
func (s *Server) URL() string { return s.URLAt(s.Addr()) }

// URLAt is URL with another address, such as that of a Link to this server.
func (s *Server) URLAt(addr string) string {
	if s.tls == nil {
		return "redis://" + addr + "/0"
	}
	return "rediss://" + addr + "/0?ca_file=" + url.QueryEscape(s.caFile)
}

// CAFile is the PEM file of the authority behind a server made by TLS, ""
// for others.
func (s *Server) CAFile() string { return s.caFile }

// Client returns a plain go-redis client that never retries and honours
// contexts; the test's cleanup closes it.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(s.options())
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func (s *Server) options() *redis.Options {
	return &redis.Options{
		Addr: s.Addr(), TLSConfig: s.tls, MaxRetries: -1, ContextTimeoutEnabled: true,
		DialerRetries: 1, DialTimeout: 10 * time.Second,
	}
}

// Real tells a redis-server process from a miniredis.
func (s *Server) Real() bool { return s.mini == nil }

// Stop ends the server in good order (SIGTERM) and returns when it is gone.
// It does nothing when the server does not run.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server the hard way (SIGKILL) and returns when it is gone. It
// does nothing when the server does not run.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.mini != nil {
		s.mini.Close()
		return
	}
	if s.proc == nil {
		return
	}
	s.proc.end(sig)
	s.proc = nil
}

// Restart starts a stopped server again, stopping it first if need be, at the
// same address, and returns when it answers. A redis-server comes back with
// what its args made it keep on disk, a miniredis with everything.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if s.mini != nil {
		if err := s.mini.Restart(); err != nil {
			s.t.Fatalf("restart miniredis: %v", err)
		}
		return
	}
	s.restart(isReady)
}

// RestartLoading restarts a redis-server with so much on its disk that it has
// to load for a while, and returns when it answers that it does.
func (s *Server) RestartLoading() {
	s.t.Helper()
	s.Stop()
	s.restart(func(answer error) (bool, error) {
		if answer == nil {
			return false, errors.New("redis-server was not seen loading: there is too little on its disk")
		}
		return isLoading(answer), nil
	})
}

func (s *Server) restart(fits func(answer error) (bool, error)) {
	s.t.Helper()
	// The port may be somebody's for the moment: an outgoing connection's.
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.run(fits)
		if err == nil {
			return
		}
		if !errors.Is(err, errExited) || time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

var errExited = errors.New("redis-server ended at start")

// process is one running redis-server.
type process struct {
	cmd    *exec.Cmd
	output *lockedBuffer
	exited chan struct{} // closed when the process was waited for
}

func startProcess(name string, args []string) (*process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s not found: run `make deps`", name)
	}
	p := &process{cmd: exec.Command(path, args...), output: &lockedBuffer{}, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // how it ended is of no interest: tests kill it
	}()
	return p, nil
}

// end sends sig, waits, and kills what did not listen.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.exited:
		return
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// lockedBuffer collects output that is read while the process still writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
