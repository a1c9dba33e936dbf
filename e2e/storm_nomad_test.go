package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// crowd is many clients that come back whenever they are sent away.
type crowd struct {
	where  func(n int) string // URL of a replica that may be away
	pace   time.Duration      // between two operations of a publisher
	within time.Duration      // over which they come for the first time
	nomads []*nomad

	present atomic.Int64 // have joined
	quiet   atomic.Bool  // publishers publish no more

	mu      sync.Mutex
	opened  map[string][]time.Time // by URL: when sockets were opened there
	refused map[int]int            // by status
}

// nomad is one client. It goes where it is told to when it is told to, and takes every operation for broken that comes
// twice or out of its place.
type nomad struct {
	crowd    *crowd
	number   int
	document string
	cookies  []*http.Cookie
	publish  bool

	// Owned by run, and read after it.
	turn  int // which replica it tries
	epoch string
	log   []string

	// What others see of it while it runs.
	reached atomic.Int64
	doing   atomic.Pointer[string] // since it was here last

	mu      sync.Mutex
	conn    *websocket.Conn // nil: it has not joined
	pending string          // operation that is not acknowledged
	acked   map[string]int  // by ID: its seq
}

// gather makes n clients, in documents by turns; the first in each publishes.
func gather(where func(int) string, n, documents int, cookies func(i int) []*http.Cookie) *crowd {
	c := &crowd{where: where, opened: map[string][]time.Time{}, refused: map[int]int{}}
	for i := range n {
		c.nomads = append(c.nomads, &nomad{
			crowd: c, number: i, turn: i, document: fmt.Sprint("room", i%documents),
			cookies: cookies(i), publish: i < documents, acked: map[string]int{},
		})
	}
	return c
}

// run lets everybody live until ctx ends; the first broken promise ends it.
func (c *crowd) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nomads {
		g.Go(func() error {
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(c.within + 1)):
			}
			return n.run(ctx)
		})
	}
	return g.Wait()
}

// allPresent is nil when everybody has joined.
func (c *crowd) allPresent() error {
	n := c.present.Load()
	if int(n) == len(c.nomads) {
		return nil
	}
	var absent []string
	for _, nomad := range c.nomads {
		nomad.mu.Lock()
		if doing := nomad.doing.Load(); nomad.conn == nil && doing != nil && len(absent) < 5 {
			absent = append(absent, fmt.Sprintf("client %d: %s", nomad.number, *doing))
		}
		nomad.mu.Unlock()
	}
	return fmt.Errorf("%d of %d are there; %s", n, len(c.nomads), strings.Join(absent, "; "))
}

// settled is nil when all is acknowledged, and everybody has it.
func (c *crowd) settled() error {
	heads := map[string]int{}
	for _, n := range c.nomads {
		n.mu.Lock()
		for _, seq := range n.acked {
			heads[n.document] = max(heads[n.document], seq)
		}
		pending := n.pending
		n.mu.Unlock()
		if pending != "" {
			return fmt.Errorf("%s is not acknowledged", pending)
		}
	}
	for _, n := range c.nomads {
		if got := int(n.reached.Load()); got < heads[n.document] {
			return fmt.Errorf("client %d has %d of %d operations", n.number, got, heads[n.document])
		}
	}
	return nil
}

// compare checks, after run, that nobody lacks anything.
func (c *crowd) compare() (operations int, err error) {
	logs := map[string][]string{}
	for _, n := range c.nomads {
		if logs[n.document] == nil {
			logs[n.document] = n.log
			operations += len(n.log)
		}
		if !slices.Equal(logs[n.document], n.log) {
			return 0, fmt.Errorf("client %d has another log than others in %s", n.number, n.document)
		}
	}
	for _, n := range c.nomads {
		for id, seq := range n.acked {
			if log := logs[n.document]; seq > len(log) || log[seq-1] != id {
				return 0, fmt.Errorf("%s was acknowledged as %d of %s and is not there", id, seq, n.document)
			}
		}
	}
	return operations, nil
}

// peak returns the most sockets that were opened at one replica within a second since then, and how many in all.
func (c *crowd) peak(since time.Time) (peak, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.opened {
		times = slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return t.Before(since) })
		slices.SortFunc(times, time.Time.Compare)
		all += len(times)
		for first, last := 0, 0; last < len(times); last++ {
			for times[last].Sub(times[first]) >= time.Second {
				first++
			}
			peak = max(peak, last-first+1)
		}
	}
	return peak, all
}

func (c *crowd) refusals(status int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused[status]
}

func (n *nomad) run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := n.live(ctx)
		n.does("%s: waits %s after %v", time.Now().Format(time.TimeOnly), wait, err)
		var promise *brokenPromise
		if errors.As(err, &promise) {
			return fmt.Errorf("client %d in %s: %w", n.number, n.document, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// live is the life of one connection. It returns when to come back.
func (n *nomad) live(ctx context.Context) (wait time.Duration, err error) {
	n.turn++
	base := n.crowd.where(n.turn)
	n.does("%s: dials %s", time.Now().Format(time.TimeOnly), base)
	wait = 100*time.Millisecond + rand.N(time.Second) // told nothing
	conn, told, err := n.dial(ctx, base)
	if err != nil {
		return max(told, wait), err
	}
	n.does("%s: is connected to %s from %s", time.Now().Format(time.TimeOnly), base, conn.LocalAddr())
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer n.leave()
	join := map[string]any{"type": "join_document"}
	if n.epoch != "" {
		join["since"] = place{n.epoch, len(n.log)}
	}
	for _, request := range []map[string]any{{"type": "authenticate"}, join} {
		if err := conn.WriteJSON(request); err != nil {
			return wait, err
		}
	}
	for {
		_, b, err := conn.ReadMessage()
		if err != nil {
			return wait, closeOf(err)
		}
		var h struct {
			heard
			AfterMS int64 `json:"after_ms"`
		}
		if err := json.Unmarshal(b, &h); err != nil {
			return wait, broken("%v: %s", err, b)
		}
		n.does("%s: heard %s from %s", time.Now().Format(time.TimeOnly), h.Type, base)
		if h.Type == "reconnect" {
			after := time.Duration(h.AfterMS) * time.Millisecond
			at := time.Now().Add(after)
			defer time.AfterFunc(after, func() { _ = conn.Close() }).Stop()
			defer func() { wait = max(0, time.Until(at)) }()
			continue
		}
		if err := n.hear(conn, h.heard); err != nil {
			return wait, err
		}
	}
}

func (n *nomad) does(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	n.doing.Store(&what)
}

func (n *nomad) dial(ctx context.Context, base string) (conn *websocket.Conn, told time.Duration, err error) {
	header := http.Header{}
	for _, c := range n.cookies {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	d := websocket.Dialer{HandshakeTimeout: 20 * time.Second, ReadBufferSize: 1024, WriteBufferSize: 1024}
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(base, "http")+"/ws/documents/"+n.document, header)
	c := n.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.opened[base] = append(c.opened[base], time.Now())
		return conn, 0, nil
	}
	if resp == nil {
		return nil, 0, err
	}
	c.refused[resp.StatusCode]++
	if resp.StatusCode != http.StatusServiceUnavailable {
		return nil, 0, broken("refused with %s", resp.Status)
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return nil, 0, broken("refused without a time to come back: %q", resp.Header.Get("Retry-After"))
	}
	return nil, time.Duration(seconds) * time.Second, errors.New(resp.Status)
}

func (n *nomad) hear(conn *websocket.Conn, h heard) error {
	switch h.Type {
	case "joined_document":
		if n.epoch == "" {
			n.epoch = h.Epoch
		} else if !h.Recovered {
			return broken("not recovered from %d of %s: %d of %s", len(n.log), n.epoch, h.Seq, h.Epoch)
		}
		for _, op := range h.Operations {
			if err := n.apply(h.Epoch, op.Seq, op.ID); err != nil {
				return err
			}
		}
		n.arrive(conn)
	case "operation":
		return n.apply(h.Epoch, h.Seq, h.ID)
	case "ack":
		n.mu.Lock()
		defer n.mu.Unlock()
		n.acked[h.Re] = h.Seq
		if n.pending == h.Re {
			n.pending = ""
			time.AfterFunc(n.crowd.pace, n.operate)
		}
	case "lagged":
		return broken("lagged")
	case "error":
		if h.Code != "UNAVAILABLE" {
			return broken("error %s", h.Code)
		}
		return errors.New(h.Code) // come back and send it again
	}
	return nil
}

func (n *nomad) apply(epoch string, seq int, id string) error {
	switch {
	case epoch != n.epoch:
		return broken("operation %d of %s, not of %s", seq, epoch, n.epoch)
	case seq <= len(n.log):
		return broken("told operation %d (%s) twice", seq, id)
	case seq > len(n.log)+1:
		return broken("told operation %d after %d", seq, len(n.log))
	}
	n.log = append(n.log, id)
	n.reached.Store(int64(seq))
	return nil
}

// arrive goes on publishing where it was left off.
func (n *nomad) arrive(conn *websocket.Conn) {
	n.crowd.present.Add(1)
	n.mu.Lock()
	n.conn = conn
	again := n.pending
	n.mu.Unlock()
	if again == "" {
		n.operate()
		return
	}
	n.send(again)
}

func (n *nomad) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		n.conn = nil
		n.crowd.present.Add(-1)
	}
}

// operate publishes the next operation, if none is under way.
func (n *nomad) operate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.publish || n.conn == nil || n.pending != "" || n.crowd.quiet.Load() {
		return
	}
	n.pending = fmt.Sprintf("%d-%d", n.number, len(n.acked)+1)
	n.sendLocked(n.pending)
}

func (n *nomad) send(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sendLocked(id)
}

func (n *nomad) sendLocked(id string) {
	if n.conn != nil {
		_ = n.conn.WriteJSON(map[string]any{"type": "operation", "id": id, "payload": n.number}) // the reader notices
	}
}
