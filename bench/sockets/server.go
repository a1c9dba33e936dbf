package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// server is a replica under measurement, and its Redis.
type server struct {
	address, admin string
	tandem         *exec.Cmd
	redisServer    *exec.Cmd // nil: embedded
	rdb            *redis.Client
	dir            string
	http           http.Client
}

func startServer(ctx context.Context, p plan) (*server, error) {
	dir, err := os.MkdirTemp("", "sockets-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, http: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	if err := s.start(ctx, p); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) start(ctx context.Context, p plan) error {
	var addresses [3]string
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses[i] = l.Addr().String()
		defer l.Close()
		if err := l.Close(); err != nil {
			return err
		}
	}
	s.address, s.admin = addresses[0], addresses[1]
	_, port, _ := net.SplitHostPort(addresses[2])
	s.redisServer = exec.CommandContext(ctx, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", s.dir)
	if err := s.redisServer.Start(); err != nil {
		return fmt.Errorf("redis-server: %w", err)
	}
	s.rdb = redis.NewClient(&redis.Options{Addr: addresses[2]})
	command, err := s.command(p, addresses[2])
	if err != nil {
		return err
	}
	s.tandem = exec.CommandContext(ctx, command[0], command[1:]...)
	s.tandem.Stderr = os.Stderr
	if err := s.tandem.Start(); err != nil {
		return err
	}
	return poll(ctx, 20*time.Second, func() error {
		resp, err := s.http.Get("http://" + s.admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// floors are what can be measured instead of Tandem, with the flags of ./floor.
var floors = map[string][]string{
	"plain": {}, "queued": {"-queued"}, "redis": {"-redis"}, "redis-queued": {"-queued", "-redis"},
}

// command is what is measured, and its arguments.
func (s *server) command(p plan, redisAddress string) ([]string, error) {
	if flags, ok := floors[p.floor]; ok {
		s.admin = s.address
		binary := filepath.Join(s.dir, "floor")
		build := exec.Command("go", "build", "-o", binary, "./bench/sockets/floor")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("building the floor: %w", err)
		}
		command := append([]string{binary, "-listen", s.address}, flags...)
		if strings.HasPrefix(p.floor, "redis") {
			command = append(command, redisAddress)
		}
		return command, nil
	}
	url := "redis://" + redisAddress + "/0"
	if p.embedded {
		url = "embedded:"
	}
	config := fmt.Sprintf(`redis: %s
listeners:
  - {address: %s, routes: [{path: /ws/documents/, use: documents}, {path: /, use: webapp}]}
admin: {address: %s}
log: {level: warn}
limits: {connections_per_session: 0, connections_per_user: 0, frames_per_second: 0, operations_per_second: 0}
`, url, s.address, s.admin)
	file := filepath.Join(s.dir, "tandem.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return []string{p.binary, "serve", "--config", file}, nil
}

func (s *server) stop() {
	for _, cmd := range []*exec.Cmd{s.tandem, s.redisServer} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	if s.rdb != nil {
		_ = s.rdb.Close()
	}
	_ = os.RemoveAll(s.dir)
}

// poll calls f until it succeeds.
func poll(ctx context.Context, within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %w", within, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// login makes sessions as an application with redisstore would, has a page show each once, as before any socket of a
// browser's, and returns their IDs.
func (s *server) login(ctx context.Context, p plan) ([]string, error) {
	n := p.connections
	if p.embedded {
		id, err := s.register(ctx)
		return slices.Repeat([]string{id}, n), err
	}
	ids := make([]string, n)
	pipe := s.rdb.Pipeline()
	for i := range ids {
		random := make([]byte, 64)
		_, _ = rand.Read(random)
		ids[i] = strings.TrimRight(base32.StdEncoding.EncodeToString(random), "=")
		pipe.Set(ctx, "session:"+ids[i], fmt.Sprintf(`{"user.id":"u%d","user.name":"User %[1]d","chat.name":"Ada"}`, i), time.Hour)
		if pipe.Len() == 1000 || i == n-1 {
			if _, err := pipe.Exec(ctx); err != nil {
				return nil, err
			}
		}
	}
	if p.floor != "" {
		return ids, nil // it has no pages
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, id := range ids {
		g.Go(func() error { return s.page(ctx, id) })
	}
	return ids, g.Wait()
}

// register makes the first user and returns the session that this gave.
func (s *server) register(ctx context.Context) (string, error) {
	form := url.Values{"username": {"bench"}, "password": {"correct horse battery"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/register", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.http.Transport.RoundTrip(req) // does not follow the redirect
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	for _, cookie := range resp.Cookies() {
		if cookie.Name == "tandem" {
			return cookie.Value, nil
		}
	}
	return "", fmt.Errorf("registering: %s and no cookie", resp.Status)
}

func (s *server) page(ctx context.Context, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/api/session", nil)
	if err != nil {
		return err
	}
	req.AddCookie(&http.Cookie{Name: "tandem", Value: id})
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return err
}

// settle waits until the replica has used hardly any processor time for long enough to give back what it does not need.
func (s *server) settle(ctx context.Context, seconds int) error {
	last, err := s.cpu()
	if err != nil {
		return err
	}
	for quiet := 0; quiet < seconds; quiet++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		now, err := s.cpu()
		if err != nil {
			return err
		}
		if now-last > 400*time.Millisecond { // verifying all sessions takes some, too
			quiet = 0
		}
		last = now
	}
	return nil
}

// resident is the replica's resident memory in bytes. A floor is told to give back what it can before.
func (s *server) resident(p plan) (int64, error) {
	if p.floor != "" {
		resp, err := s.http.Get("http://" + s.admin + "/free")
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
	}
	fields, err := proc(s.tandem, "statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// cpu is the processor time that the replica has used.
func (s *server) cpu() (time.Duration, error) { return cpu(s.tandem) }

// redisCPU is that of its Redis.
func (s *server) redisCPU() (time.Duration, error) { return cpu(s.redisServer) }

func (s *server) bothCPU() (replica, redisServer time.Duration, err error) {
	if replica, err = s.cpu(); err != nil {
		return 0, 0, err
	}
	redisServer, err = s.redisCPU()
	return replica, redisServer, err
}

func cpu(of *exec.Cmd) (time.Duration, error) {
	fields, err := proc(of, "stat")
	if err != nil {
		return 0, err
	}
	user, err := strconv.ParseInt(fields[13], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[14], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ, see proc(5)
	return time.Duration(user+system) * tick, err
}

func proc(of *exec.Cmd, name string) ([]string, error) {
	if err := of.Process.Signal(syscall.Signal(0)); err != nil { // it has ended
		return nil, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", of.Process.Pid, name))
	return strings.Fields(string(b)), err
}

// memory is what the Go runtime says of itself.
func (s *server) memory(p plan) string {
	if p.floor != "" {
		return "which does not say of what"
	}
	resp, err := s.http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	var parts []string
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		n, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "go_memstats_heap_inuse_bytes", name == "go_memstats_stack_inuse_bytes", name == "go_memstats_heap_alloc_bytes":
			parts = append(parts, fmt.Sprintf("%s %.1f MB", strings.TrimSuffix(strings.TrimPrefix(name, "go_memstats_"), "_bytes"), n/1e6))
		case name == "go_goroutines":
			parts = append(parts, fmt.Sprintf("%.0f goroutines", n))
		}
	}
	return strings.Join(parts, ", ")
}

// save writes what the admin listener answers to a file.
func (s *server) save(file, path string) error {
	resp, err := s.http.Get("http://" + s.admin + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
