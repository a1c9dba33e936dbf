package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// What it costs that thousands of sides wait on one replica, and how long it takes until they are paired from the other.
func TestPairsWaiting(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "limits: {connections_per_session: 0, connections_per_user: 0}\n")
	n, ada := pairSizes.waiting, s.visitor("ada")
	before := s.a.figures()
	first := make([]chan time.Time, n)
	eachSide(t, ada, s.a, "/left/", n, func(i int, _ time.Time, c *websocket.Conn) error {
		first[i] = make(chan time.Time, 1)
		go func() { // from now on: a client that answers no pings is dropped
			defer close(first[i])
			if wantPaired(c) == nil {
				first[i] <- time.Now()
			}
		}()
		return nil
	})
	after := s.a.figures()
	each := func(name string) float64 { return (after[name] - before[name]) / float64(n) }
	const watch = 12 * time.Second // two looks at each side
	calls := s.calls()
	<-time.After(watch) // the interval that is measured
	t.Logf("%d sides wait: %.2f goroutines, %.1f KiB of heap and stacks, %.1f KiB resident each; %.0f Redis commands/s, those within scripts counted",
		n, each("go_goroutines"), (each("go_memstats_heap_inuse_bytes")+each("go_memstats_stack_inuse_bytes"))/1024,
		each("process_resident_memory_bytes")/1024, float64(s.calls()-calls)/watch.Seconds())
	if g := each("go_goroutines"); g > 1.2 {
		t.Errorf("%.2f goroutines a side", g)
	}

	took := make([]time.Duration, n)
	start := time.Now()
	eachSide(t, ada, s.b, "/right/", n, func(i int, began time.Time, c *websocket.Conn) error {
		if err := wantPaired(c); err != nil {
			return err
		}
		at, ok := <-first[i]
		if !ok {
			return fmt.Errorf("the left side of pair %d was not paired", i)
		}
		took[i] = max(time.Since(began), at.Sub(began))
		return nil
	})
	total := time.Since(start)
	slices.Sort(took)
	t.Logf("paired in one sweep from the other replica, %d at once: from the dial until both are paired p50 %v, p99 %v; all after %v",
		sidesAtOnce, took[n/2].Round(time.Microsecond), took[n*99/100].Round(time.Microsecond), total.Round(time.Millisecond))
}

func wantPaired(c *websocket.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	_, data, err := c.ReadMessage()
	if err == nil && !bytes.Contains(data, []byte(`"paired"`)) {
		err = fmt.Errorf("%s, not paired", data)
	}
	return err
}

const sidesAtOnce = 8

// eachSide opens that side of n pairs, some at once, and does something with each.
func eachSide(t *testing.T, who *person, r *replica, side string, n int, do func(i int, began time.Time, c *websocket.Conn) error) {
	t.Helper()
	conns := make([]*websocket.Conn, n)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var g errgroup.Group
	g.SetLimit(sidesAtOnce)
	for i := range n {
		g.Go(func() (err error) {
			began := time.Now()
			if conns[i], _, err = who.trySide(r, side+strconv.Itoa(i), pairProtocol); err != nil {
				return err
			}
			return do(i, began, conns[i])
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// figures are the replica's metrics that have no labels, by name.
func (r *replica) figures() map[string]float64 {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.ContainsAny(name, "#{") {
			all[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return all
}

// calls is how many commands Redis has run.
func (s *pairSite) calls() int {
	s.t.Helper()
	info, err := s.client.InfoMap(s.t.Context(), "stats").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := strconv.Atoi(info["Stats"]["total_commands_processed"])
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Megabytes from a sender that never waits, on one replica, to a reader that often does, on the other: every byte comes,
// once and in order, and neither the replicas nor Redis hold more than a stated part of it.
func TestPairRelayOfMuch(t *testing.T) {
	t.Parallel()
	const (
		largest  = 60 << 10
		resident = 32 << 20 // of a replica, more than when it was idle; the race detector's own is not bounded
		stored   = 1 << 20  // in Redis: a window of 4 batches of 64 KiB and a message each, and what Redis adds
	)
	s := startPairSite(t, "pairs: {mode: relay}\nlimits: {frames_per_second: 0}\n")
	total := pairSizes.relayMiB << 20
	ada := s.visitor("ada")
	left, _, err := ada.trySide(s.a, "/left/much")
	if err != nil {
		t.Fatal(err)
	}
	right, _, err := ada.trySide(s.b, "/right/much")
	if err != nil {
		t.Fatal(err)
	}
	before := [2]float64{s.a.figures()["process_resident_memory_bytes"], s.b.figures()["process_resident_memory_bytes"]}
	var sending errgroup.Group
	defer func() {
		_ = left.Close()
		_ = right.Close()
		if err := sending.Wait(); err != nil {
			t.Error(err)
		}
	}()
	sending.Go(func() error {
		source := rand.New(rand.NewPCG(5, 5))
		for sent := 0; sent < total; {
			data := randomBytes(source, largest)
			if sent += len(data); left.WriteMessage(websocket.BinaryMessage, data) != nil {
				return fmt.Errorf("cut off after %d bytes", sent)
			}
		}
		return left.WriteMessage(websocket.TextMessage, []byte("the end"))
	})

	expected := rand.New(rand.NewPCG(5, 5))
	start, pauses := time.Now(), 0
	var most [2]float64
	var kept int64
	for read := 0; ; {
		_ = right.SetReadDeadline(time.Now().Add(time.Minute))
		kind, data, err := right.ReadMessage()
		if err != nil {
			t.Fatalf("after %d bytes: %v", read, err)
		}
		if kind == websocket.TextMessage {
			if string(data) != "the end" || read < total {
				t.Fatalf("%q after %d bytes", data, read)
			}
			break
		}
		if !bytes.Equal(data, randomBytes(expected, largest)) {
			t.Fatalf("other bytes after %d", read)
		}
		if before := read; before>>20 != (read+len(data))>>20 {
			kept = max(kept, s.heldBack("much", kept))
			for i, r := range []*replica{s.a, s.b} {
				most[i] = max(most[i], r.figures()["process_resident_memory_bytes"])
			}
			pauses++
		}
		read += len(data)
	}
	t.Logf("%d MiB in %v with %d pauses: at most %d KiB in Redis; resident memory grew by %.1f MiB at the sender's replica, %.1f MiB at the reader's",
		total>>20, time.Since(start).Round(time.Millisecond), pauses, kept>>10, (most[0]-before[0])/(1<<20), (most[1]-before[1])/(1<<20))
	if kept > stored || pairSizes.plain && max(most[0]-before[0], most[1]-before[1]) > resident {
		t.Error("memory is not bounded as stated")
	}
}

// heldBack waits until nothing moves, as nobody reads, and returns the most that Redis has held of the pair.
func (s *pairSite) heldBack(pair string, most int64) int64 {
	s.t.Helper()
	posted := ""
	for same := 0; same < 3; {
		used, err := s.client.MemoryUsage(s.t.Context(), pairKey(pair), 0).Result() // 0: every field, no estimate
		if err != nil {
			s.t.Fatal(err)
		}
		most = max(most, used)
		now := s.field(pair, "left:posted")
		if same++; now != posted {
			posted, same = now, 0
		}
		<-time.After(10 * time.Millisecond) // the slowness that is tested
	}
	return most
}

// randomBytes are up to that many bytes, the same for the same source.
func randomBytes(source *rand.Rand, largest int) []byte {
	data := make([]byte, 1+source.IntN(largest))
	for i := 0; i+8 <= len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], source.Uint64())
	}
	return data
}
