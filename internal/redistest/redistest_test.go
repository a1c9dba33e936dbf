package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func TestMain(m *testing.M) {
	// After many failed dials go-redis tries again each second, and looks only
	// then whether its client was closed meanwhile.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func TestServerAnswersAndRestarts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, s *redistest.Server) {
		ctx := context.Background()
		rdb, addr := s.Client(t), s.Addr()
		if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if err := rdb.Ping(ctx).Err(); err == nil {
			t.Fatal("a killed server answered")
		}
		s.Restart()
		if err := rdb.Ping(ctx).Err(); err != nil {
			t.Fatalf("after restart: %v", err)
		}
		if s.Addr() != addr {
			t.Fatalf("restarted on %s, was on %s", s.Addr(), addr)
		}
		// Without persistence a killed process has lost everything.
		if n := rdb.Exists(ctx, "k").Val(); s.Real() && n != 0 {
			t.Fatal("the killed server kept its data")
		}
		s.Stop()
		s.Stop() // does nothing
	})
}

func TestServerKeepsDataWhenAsked(t *testing.T) {
	ctx := context.Background()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := s.Client(t)
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Restart()
	if got := rdb.Get(ctx, "k").Val(); got != "v" {
		t.Fatalf("got %q after the restart", got)
	}
}

func TestTLSServer(t *testing.T) {
	s := redistest.TLS(t)
	if err := s.Client(t).Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	if want := "rediss://" + s.Addr() + "/0?ca_file="; !strings.HasPrefix(s.URL(), want) {
		t.Fatalf("URL %q does not start with %q", s.URL(), want)
	}
	if _, err := os.Stat(s.CAFile()); err != nil {
		t.Fatal(err)
	}
}

// client speaks Redis by hand over one connection through a link.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, l *redistest.Link) *client {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// do sends a command and returns its one-line reply.
func (c *client) do(command string, wait time.Duration) (string, error) {
	c.t.Helper()
	words := strings.Fields(command)
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, word := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := c.conn.Write([]byte(request)); err != nil {
		return "", err
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	line, err := c.r.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (c *client) mustDo(command, want string) {
	c.t.Helper()
	if got, err := c.do(command, 5*time.Second); err != nil || got != want {
		c.t.Fatalf("%s: got %q, %v; want %q", command, got, err, want)
	}
}

// mustHearNothing wants silence: neither a reply nor the end of the connection.
func (c *client) mustHearNothing(command string) {
	c.t.Helper()
	got, err := c.do(command, 100*time.Millisecond)
	if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		c.t.Fatalf("%s: got %q, %v; want silence", command, got, err)
	}
}

func TestLinkCutAndHeal(t *testing.T) {
	s := redistest.Mini(t)
	l := redistest.NewLink(t, s.Addr())
	c := dial(t, l)
	c.mustDo("PING", "+PONG")
	l.Cut()
	if got, err := c.do("PING", 5*time.Second); err == nil {
		t.Fatalf("a cut link answered %q", got)
	}
	if _, err := net.Dial("tcp", l.Addr()); err == nil {
		t.Fatal("a cut link accepted a connection")
	}
	l.Heal()
	dial(t, l).mustDo("PING", "+PONG")
	if n := l.Accepted(); n != 2 {
		t.Fatalf("accepted %d connections, want 2", n)
	}
}

func TestLinkBlackhole(t *testing.T) {
	s := redistest.Mini(t)
	l := redistest.NewLink(t, s.Addr())
	used, idle := dial(t, l), dial(t, l)
	used.mustDo("PING", "+PONG")
	idle.mustDo("PING", "+PONG")
	l.Blackhole(true)
	used.mustHearNothing("PING")
	dial(t, l).mustHearNothing("PING")
	l.Blackhole(false)
	used.mustHearNothing("PING")
	idle.mustDo("PING", "+PONG")
	dial(t, l).mustDo("PING", "+PONG")
}

func TestLinkDropIdle(t *testing.T) {
	s := redistest.Mini(t)
	l := redistest.NewLink(t, s.Addr())
	old := dial(t, l)
	old.mustDo("PING", "+PONG")
	l.DropIdle()
	old.mustHearNothing("PING")
	dial(t, l).mustDo("PING", "+PONG")
	old.mustHearNothing("PING")
}

func TestLinkDropReplies(t *testing.T) {
	s := redistest.Mini(t)
	l := redistest.NewLink(t, s.Addr())
	c := dial(t, l)
	c.mustDo("INCR n", ":1")
	l.DropReplies(1)
	if got, err := c.do("INCR n", 5*time.Second); err == nil {
		t.Fatalf("got the reply %q", got)
	}
	// The command ran all the same.
	dial(t, l).mustDo("INCR n", ":3")
}

func TestLinkDelay(t *testing.T) {
	s := redistest.Mini(t)
	l := redistest.NewLink(t, s.Addr())
	c := dial(t, l)
	l.Delay(50 * time.Millisecond)
	start := time.Now()
	c.mustDo("PING", "+PONG")
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Fatalf("took %s, want 50ms each way", took)
	}
}
