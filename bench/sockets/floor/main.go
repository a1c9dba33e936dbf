// Command floor serves documents the way that comes to mind first, and nothing more: gorilla/websocket with a goroutine
// that reads and one that writes for each socket, one PreparedMessage for each broadcast. It speaks as much of Tandem's
// protocol as ../ needs to measure it, and promises nothing: no identity, order, log, recovery or limit. What Tandem's
// figures are compared with.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

// server is one process. With rdb it does at Redis what a simple implementation does: reads a session at each join,
// lists who is there in a hash, and sends operations through pub/sub.
type server struct {
	queued bool // what waits for a socket goes out in one write
	rdb    *redis.Client

	mu    sync.RWMutex
	rooms map[string]*room

	upgrader websocket.Upgrader
}

type room struct {
	name string
	seq  atomic.Uint64

	mu      sync.RWMutex
	members map[*conn]struct{}
}

// conn is one socket. Its goroutine of writes ends when out is closed.
type conn struct {
	ws  *websocket.Conn
	out chan message
}

// message is a frame that is shared, or one for this socket alone.
type message struct {
	prepared *websocket.PreparedMessage
	frame    []byte // the same on the wire
	text     string
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address, host:port")
	queued := flag.Bool("queued", false, "write all frames that wait for a socket at once")
	at := flag.String("redis", "", "address of a Redis, host:port; empty: none")
	flag.Parse()
	s := &server{
		queued: *queued, rooms: map[string]*room{},
		upgrader: websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }},
	}
	if *at != "" {
		s.rdb = redis.NewClient(&redis.Options{Addr: *at, PoolSize: 64})
		go s.receive(context.Background())
	}
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/free", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	http.HandleFunc("/ws/documents/", s.serve)
	log.Fatal(http.ListenAndServe(*listen, nil))
}

func (s *server) room(name string) *room {
	s.mu.RLock()
	r := s.rooms[name]
	s.mu.RUnlock()
	if r != nil {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r = s.rooms[name]; r == nil {
		r = &room{name: name, members: map[*conn]struct{}{}}
		s.rooms[name] = r
	}
	return r
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &conn{ws: ws, out: make(chan message, 256)}
	go s.write(c)
	s.read(c, r)
}

// read answers a client's frames until the socket ends.
func (s *server) read(c *conn, r *http.Request) {
	defer close(c.out)
	room := s.room(strings.TrimPrefix(r.URL.Path, "/ws/documents/"))
	c.out <- message{text: `{"type":"hello"}`}
	defer func() {
		room.mu.Lock()
		delete(room.members, c)
		room.mu.Unlock()
	}()
	for {
		_, body, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		var f struct {
			Type    string
			ID      string
			Payload json.RawMessage
		}
		if err := json.Unmarshal(body, &f); err != nil {
			return
		}
		switch f.Type {
		case "authenticate":
			if s.rdb != nil {
				cookie, err := r.Cookie("tandem")
				if err != nil || s.rdb.Get(r.Context(), "session:"+cookie.Value).Err() != nil {
					return
				}
			}
			c.out <- message{text: `{"type":"auth_result","ok":true}`}
		case "join_document":
			if s.rdb != nil {
				if s.rdb.HSet(r.Context(), "presence:"+room.name, fmt.Sprintf("%p", c), body).Err() != nil {
					return
				}
			}
			room.mu.Lock()
			room.members[c] = struct{}{}
			room.mu.Unlock()
			c.out <- message{text: `{"type":"joined_document"}`}
		case "operation":
			operation := fmt.Appendf(nil, `{"type":"operation","seq":%d,"id":%q,"payload":%s}`, room.seq.Add(1), f.ID, f.Payload)
			if s.rdb == nil {
				s.broadcast(room, operation)
			} else if s.rdb.Publish(r.Context(), "room:"+room.name, operation).Err() != nil {
				return
			}
			c.out <- message{text: `{"type":"ack"}`}
		}
	}
}

// receive broadcasts what pub/sub brings.
func (s *server) receive(ctx context.Context) {
	for m := range s.rdb.PSubscribe(ctx, "room:*").Channel(redis.WithChannelSize(10000)) {
		s.broadcast(s.room(strings.TrimPrefix(m.Channel, "room:")), []byte(m.Payload))
	}
}

// broadcast waits for sockets that are slow, so that nothing is lost.
func (s *server) broadcast(r *room, body []byte) {
	var m message
	if s.queued {
		m.frame = frameOf(body)
	} else {
		m.prepared, _ = websocket.NewPreparedMessage(websocket.BinaryMessage, body) // fails for no binary message
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for c := range r.members {
		c.out <- m
	}
}

func (s *server) write(c *conn) {
	defer c.ws.Close()
	failed := false // then what comes is thrown away, so that nobody waits
	var together net.Buffers
	for m := range c.out {
		switch {
		case failed:
		case m.prepared != nil:
			failed = c.ws.WritePreparedMessage(m.prepared) != nil
		case m.frame == nil:
			failed = c.ws.WriteMessage(websocket.TextMessage, []byte(m.text)) != nil
		default:
			together = append(together[:0], m.frame)
			var next message
			for more := true; more; {
				select {
				case m, more = <-c.out:
					if more = more && m.frame != nil; more {
						together = append(together, m.frame)
					} else {
						next = m
					}
				default:
					more = false
				}
			}
			_, err := c.ws.NetConn().Write(bytes.Join(together, nil))
			if err == nil && next.text != "" {
				err = c.ws.WriteMessage(websocket.TextMessage, []byte(next.text))
			}
			failed = err != nil
		}
		if failed {
			_ = c.ws.Close()
		}
	}
}

// frameOf is a binary frame of a server: RFC 6455, section 5.2.
func frameOf(body []byte) []byte {
	head := []byte{0x82, byte(len(body))}
	if len(body) > 125 {
		head = []byte{0x82, 126, byte(len(body) >> 8), byte(len(body))}
	}
	return append(head, body...)
}
