package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// client is one socket. It is served without a library, and once it has joined by the one goroutine of its crowd, so that
// the generator leaves the machine to what is measured.
type client struct {
	conn *net.TCPConn
	in   *bufio.Reader
	fd   int // instead of both, once it is in a crowd

	rest []byte // of a frame; owned by the crowd
	last uint64 // seq of the newest operation; owned by the crowd
}

// tally is what all clients count together.
type tally struct {
	deliveries, acks, lagged, gaps, refused atomic.Int64

	mu    sync.Mutex
	delay []time.Duration // of every 64th delivery or so
}

var counts tally

// connectAll opens sockets, each of the session with one of ids, and joins them.
func connectAll(ctx context.Context, s *server, p plan, ids []string) (*crowd, error) {
	n := len(ids)
	clients := make([]*client, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.joining)
	for i := range clients {
		g.Go(func() error {
			c, err := connect(ctx, s, ids[i], "room"+strconv.Itoa(i/p.room))
			if err != nil {
				return fmt.Errorf("socket %d: %w", i, err)
			}
			clients[i] = c
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return gather(clients)
}

func connect(ctx context.Context, s *server, id, document string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn.(*net.TCPConn), in: bufio.NewReaderSize(conn, 8<<10)}
	if err := c.join(s.address, id, document); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// join upgrades, authenticates and joins.
func (c *client) join(host, id, document string) error {
	_, err := fmt.Fprintf(c.conn, "GET /ws/documents/%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c29ja2V0cy1tZWFzdXJlZA==\r\nCookie: tandem=%s\r\n\r\n", document, host, id)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	for _, step := range []struct{ send, want string }{
		{"", "hello"}, {`{"type":"authenticate"}`, "auth_result"}, {`{"type":"join_document"}`, "joined_document"},
	} {
		if step.send != "" {
			if _, err := c.conn.Write(clientFrame(opText, []byte(step.send))); err != nil {
				return err
			}
		}
		if err := c.expect(step.want); err != nil {
			return err
		}
	}
	return nil
}

// expect reads up to the reply of this kind.
func (c *client) expect(kind string) error {
	for {
		op, body, rest, err := frame(c.in)
		if err != nil {
			return err
		}
		replied := op == opText && bytes.HasPrefix(body, []byte(`{"type":"`+kind+`"`))
		if op == opText && !replied {
			return fmt.Errorf("%s instead of %s", body, kind)
		}
		if op == opPing {
			if _, err := c.conn.Write(clientFrame(opPong, nil)); err != nil {
				return err
			}
		}
		if _, err := c.in.Discard(rest); err != nil {
			return err
		}
		if replied {
			return nil
		}
	}
}

// Opcodes of RFC 6455, section 11.8.
const (
	opText   = 1
	opBinary = 2
	opPing   = 9
	opPong   = 10
)

// clientFrame is one frame of a client, masked with zeros.
func clientFrame(op byte, body []byte) []byte {
	b := []byte{0x80 | op, 0x80 | byte(len(body)), 0, 0, 0, 0}
	if len(body) > 125 {
		b = []byte{0x80 | op, 0x80 | 126, byte(len(body) >> 8), byte(len(body)), 0, 0, 0, 0}
	}
	return append(b, body...)
}

// frame peeks at the next frame of a server, which is not masked: RFC 6455, section 5.2. The caller discards rest bytes.
func frame(r *bufio.Reader) (op byte, body []byte, rest int, err error) {
	head, err := r.Peek(2)
	if err != nil {
		return 0, nil, 0, err
	}
	op, length, skip := head[0]&0xf, int(head[1]&0x7f), 2
	switch length {
	case 126:
		if head, err = r.Peek(4); err != nil {
			return 0, nil, 0, err
		}
		length, skip = int(binary.BigEndian.Uint16(head[2:])), 4
	case 127:
		if head, err = r.Peek(10); err != nil {
			return 0, nil, 0, err
		}
		length, skip = int(binary.BigEndian.Uint64(head[2:])), 10
	}
	if _, err = r.Discard(skip); err != nil {
		return 0, nil, 0, err
	}
	if length <= r.Size() {
		body, err = r.Peek(length)
		return op, body, length, err
	}
	body = make([]byte, length) // a long one: taken out, so that nothing is left to discard
	if _, err = io.ReadFull(r, body); err != nil {
		return 0, nil, 0, err
	}
	return op, body, 0, nil
}

// deliver publishes at a rate, evenly over the documents, and states what came of it.
func (p plan) deliver(ctx context.Context, s *server, crowd *crowd, rate int) error {
	clients := crowd.clients
	counts.deliveries.Store(0)
	counts.acks.Store(0)
	counts.lagged.Store(0)
	counts.gaps.Store(0)
	counts.refused.Store(0)
	counts.mu.Lock()
	counts.delay = counts.delay[:0]
	counts.mu.Unlock()
	before, beforeRedis, err := s.bothCPU()
	if err != nil {
		return err
	}
	padding := bytes.Repeat([]byte("x"), p.size-32)
	began := time.Now()
	sent, rooms := 0, (len(clients)+p.room-1)/p.room
	for total := rate * p.seconds; sent < total; {
		due := min(total, int(time.Since(began).Seconds()*float64(rate)))
		for ; sent < due; sent++ {
			c := clients[min(sent%rooms*p.room+sent/rooms%p.room, len(clients)-1)] // every room in turn, every member in turn
			op := fmt.Appendf(nil, `{"type":"operation","id":"%d-%d","payload":{"t":%d,"x":"%s"}}`, rate, sent, time.Now().UnixNano(), padding)
			if err := c.write(clientFrame(opText, op)); err != nil {
				return err
			}
		}
		time.Sleep(time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	want := int64(sent) * int64(len(clients)) / int64(rooms)
	waited := poll(ctx, 20*time.Second, func() error {
		if got := counts.deliveries.Load(); got < want {
			return fmt.Errorf("%d of %d deliveries", got, want)
		}
		return nil
	})
	took := time.Since(began)
	after, afterRedis, err := s.bothCPU()
	if err != nil {
		return err
	}
	counts.mu.Lock()
	slices.Sort(counts.delay)
	var p50, p99 time.Duration
	if n := len(counts.delay); n > 0 {
		p50, p99 = counts.delay[n/2], counts.delay[n*99/100]
	}
	counts.mu.Unlock()
	got := counts.deliveries.Load()
	fmt.Printf("%d operations/s: %.0f deliveries/s, p50 %.1f ms, p99 %.1f ms; CPU s a million %.1f, and %.1f of Redis; %d acknowledged, %d refused, %d lagged, %d gaps",
		rate, float64(got)/took.Seconds(), p50.Seconds()*1e3, p99.Seconds()*1e3,
		(after-before).Seconds()/float64(max(1, got))*1e6, (afterRedis-beforeRedis).Seconds()/float64(max(1, got))*1e6, counts.acks.Load(), counts.refused.Load(), counts.lagged.Load(), counts.gaps.Load())
	if waited != nil {
		fmt.Printf("; %v", waited)
	}
	fmt.Println()
	return nil
}
