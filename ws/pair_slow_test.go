//go:build slow

package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/ws"
)

// What it costs that thousands wait, and how long it takes them to be paired
// from another replica. The client ends are in this process too, and part of the
// memory that is told; they have no goroutines while they wait.
func TestPairWaiting(t *testing.T) {
	const sides, waitingTick = 5000, 3 * time.Second // the tick is the default
	w := newPairWorld(t, redistest.Start(t))
	// Nothing is read from those who wait until all do: they answer no pings.
	unlimited := func(c *ws.Config) { c.Limits, c.Heartbeat = ws.Limits{}, time.Minute }
	a := w.replica("a", pairOptions{change: unlimited, tick: waitingTick})
	b := w.replica("b", pairOptions{change: unlimited, tick: waitingTick})
	me, you := w.login("1"), w.login("2")
	before, memory := runtime.NumGoroutine(), heap()
	waiting := openSides(t, a, ws.Left, sides, me)
	eventually(t, "all to wait", func() bool { return len(a.hub.Connections()) == sides })
	goroutines := float64(runtime.NumGoroutine()-before) / sides
	bytes := float64(heap()-memory) / sides

	calls := commands(t, w)
	const watch = 4 * waitingTick // two looks at each side
	time.Sleep(watch)             // an interval that is measured
	perSecond := float64(commands(t, w)-calls) / watch.Seconds()
	t.Logf("%d sides wait: %.2f goroutines, %.0f bytes each, %.0f commands/s, those in scripts counted", sides, goroutines, bytes, perSecond)
	if goroutines > 1.1 {
		t.Errorf("%.2f goroutines a side", goroutines)
	}

	paired := make([]chan time.Time, sides)
	for i, c := range waiting {
		paired[i] = make(chan time.Time, 1)
		go func() {
			expectPaired(t, c)
			paired[i] <- time.Now()
		}()
	}
	took := make([]time.Duration, sides)
	start := time.Now()
	eachSide(t, b, ws.Right, sides, you, func(i int, began time.Time, c *websocket.Conn) {
		expectPaired(t, c)
		took[i] = max(time.Since(began), (<-paired[i]).Sub(began))
		_ = c.Close()
	})
	slices.Sort(took)
	t.Logf("from the dial of the second side, %d at once, until both are paired: p50 %v, p99 %v; all after %v",
		openAtOnce, took[sides/2], took[sides*99/100], time.Since(start))
}

func expectPaired(t *testing.T, c *websocket.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, data, err := c.ReadMessage(); err != nil || !strings.Contains(string(data), `"paired"`) {
		t.Errorf("%s %v", data, err)
	}
}

const openAtOnce = 16

// openSides opens a side of n pairs.
func openSides(t *testing.T, r *pairReplica, side ws.Side, n int, c *cookie) []*websocket.Conn {
	t.Helper()
	conns := make([]*websocket.Conn, n)
	eachSide(t, r, side, n, c, func(i int, _ time.Time, conn *websocket.Conn) { conns[i] = conn })
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}

// eachSide opens a side of n pairs, openAtOnce at a time, and does something
// with each.
func eachSide(t *testing.T, r *pairReplica, side ws.Side, n int, c *cookie, do func(i int, began time.Time, conn *websocket.Conn)) {
	t.Helper()
	next := make(chan int)
	var all sync.WaitGroup
	dialer := &websocket.Dialer{Subprotocols: []string{ws.PairProtocol}, ReadBufferSize: 256, WriteBufferSize: 256}
	for range openAtOnce {
		all.Go(func() {
			for i := range next {
				began := time.Now()
				conn, _, err := dialer.Dial("ws"+strings.TrimPrefix(r.url(side, strconv.Itoa(i)), "http"), c.header())
				if err != nil {
					panic(err) // nothing that follows would make sense
				}
				do(i, began, conn)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func commands(t *testing.T, w *pairWorld) int {
	t.Helper()
	info, err := w.redis.Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "total_commands_processed:")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\r\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Four connections over two replicas take turns while one replica is cut off
// twice: no number comes twice, and within a pair none is skipped back to.
func TestPairTurns(t *testing.T) {
	const turns = 10_000
	w := newPairWorld(t, redistest.Start(t))
	// Nothing is read from those who wait until all do: they answer no pings.
	unlimited := func(c *ws.Config) { c.Limits, c.Heartbeat = ws.Limits{}, time.Minute }
	replicas := []*pairReplica{w.replica("a", pairOptions{change: unlimited}), w.replica("b", pairOptions{change: unlimited})}
	type seat struct {
		pair string
		side ws.Side
		who  *cookie
		conn *websocket.Conn
	}
	var seats []*seat
	for i := range 4 {
		side := []ws.Side{ws.Left, ws.Right}[i%2]
		seats = append(seats, &seat{pair: fmt.Sprint("p", i/2), side: side, who: w.login(fmt.Sprint(i))})
	}
	open := func(s *seat, r *pairReplica) {
		eventually(t, "the side to be had again", func() bool {
			conn, response, err := (&websocket.Dialer{}).DialContext(context.Background(), "ws"+strings.TrimPrefix(r.url(s.side, s.pair), "http"), s.who.header())
			if err != nil && (response == nil || response.StatusCode != http.StatusConflict && response.StatusCode != http.StatusServiceUnavailable) {
				t.Fatal(err)
			}
			s.conn = conn
			return err == nil
		})
	}
	for i, s := range seats {
		open(s, replicas[i%2])
	}
	lives := map[string]string{}
	last := map[string]int{}
	for turn := range turns {
		if turn == turns/3 || turn == 2*turns/3 {
			replicas[1].link.Cut()
			for _, s := range seats[1:4:4] {
				if s.side == ws.Right {
					_ = s.conn.Close()
					open(s, replicas[0])
				}
			}
			replicas[1].link.Heal()
		}
		s := seats[turn%4]
		want := fmt.Sprint("turn ", turn)
		if err := s.conn.WriteMessage(websocket.TextMessage, []byte(want)); err != nil {
			t.Fatal(err)
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(patience))
		_, data, err := s.conn.ReadMessage()
		if err != nil {
			t.Fatalf("turn %d: %v", turn, err)
		}
		parts := strings.SplitN(string(data), " | ", 3)
		index, err := strconv.Atoi(parts[1])
		if err != nil || parts[2] != want {
			t.Fatalf("%s, not %s", data, want)
		}
		if lives[s.pair] == "" {
			lives[s.pair], last[s.pair] = parts[0], -1
		}
		if parts[0] != lives[s.pair] || index != last[s.pair]+1 {
			t.Fatalf("turn %d: %s after %s %d", turn, data, lives[s.pair], last[s.pair])
		}
		last[s.pair] = index
	}
}
