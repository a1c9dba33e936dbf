package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// frame is one JSON frame, whatever its type; binary says that it was a broadcast.
type frame struct {
	binary bool
	raw    string
	fields map[string]any
}

func (f frame) kind() string {
	s, _ := f.fields["type"].(string)
	return s
}

// number reads a numeric field; a missing one is -1.
func (f frame) number(name string) int {
	n, ok := f.fields[name].(float64)
	if !ok {
		return -1
	}
	return int(n)
}

// socket is a client of the document protocol. Frames are read by one goroutine; tests wait for the one they want.
type socket struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan frame
	closed chan *websocket.CloseError
	ended  time.Time // when it was closed; read after closed
	kept   []frame   // seen while waiting for another

	connection string // ID, once authenticated
}

// dial opens a socket with the person's cookies. On refusal the response is returned and the socket is nil.
func (p *person) dial(base, path string, header http.Header) (*socket, *http.Response) {
	p.t.Helper()
	if header == nil {
		header = http.Header{}
	}
	for _, c := range p.cookies(base) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	d := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	if t, ok := p.http.Transport.(*http.Transport); ok {
		d.TLSClientConfig = t.TLSClientConfig
	}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(base, "http")+path, header)
	if err != nil {
		if resp == nil {
			p.t.Fatalf("dial %s: %v", path, err)
		}
		return nil, resp
	}
	s := &socket{t: p.t, conn: conn, frames: make(chan frame, 65536), closed: make(chan *websocket.CloseError, 1)}
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.read()
	}()
	p.t.Cleanup(func() {
		conn.Close()
		<-reading
	})
	return s, resp
}

func (s *socket) read() {
	defer close(s.frames)
	for {
		kind, b, err := s.conn.ReadMessage()
		if err != nil {
			closed := &websocket.CloseError{Code: websocket.CloseAbnormalClosure, Text: err.Error()}
			errors.As(err, &closed)
			s.ended = time.Now()
			s.closed <- closed
			return
		}
		if secret.Match(b) {
			s.t.Errorf("a frame shows a session ID")
		}
		f := frame{binary: kind == websocket.BinaryMessage, raw: string(b)}
		if err := json.Unmarshal(b, &f.fields); err != nil {
			f.fields = map[string]any{"type": "not JSON"}
		}
		s.frames <- f
	}
}

// open dials a document, authenticates and joins.
func (p *person) open(base, document string) *socket {
	p.t.Helper()
	s := p.authenticated(base, document)
	s.send(map[string]any{"type": "join_document"})
	s.want("joined_document")
	return s
}

func (p *person) authenticated(base, document string) *socket {
	p.t.Helper()
	s, resp := p.dial(base, "/ws/documents/"+document, nil)
	if s == nil {
		p.t.Fatalf("dial: %s", resp.Status)
	}
	s.authenticate()
	return s
}

func (s *socket) authenticate() {
	s.t.Helper()
	s.connection, _ = s.want("hello").fields["connection_id"].(string)
	s.send(map[string]any{"type": "authenticate"})
	if f := s.want("auth_result"); f.fields["ok"] != true {
		s.t.Fatalf("not authenticated: %s", f.raw)
	}
}

func (s *socket) send(v any) {
	s.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sendRaw(websocket.TextMessage, b)
}

func (s *socket) sendRaw(kind int, b []byte) {
	s.t.Helper()
	if err := s.conn.WriteMessage(kind, b); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

// want waits for the next frame of a type; others are kept for later wants.
func (s *socket) want(kind string) frame {
	s.t.Helper()
	return s.wantThat(kind, func(frame) bool { return true })
}

func (s *socket) wantThat(kind string, fits func(frame) bool) frame {
	s.t.Helper()
	for i, f := range s.kept {
		if f.kind() == kind && fits(f) {
			s.kept = append(s.kept[:i:i], s.kept[i+1:]...)
			return f
		}
	}
	timeout := time.After(15 * time.Second)
	for {
		select {
		case f, ok := <-s.frames:
			if !ok {
				c := <-s.closed
				s.closed <- c
				s.t.Fatalf("closed with %d %q while waiting for %s", c.Code, c.Text, kind)
			}
			if f.kind() == kind && fits(f) {
				return f
			}
			s.kept = append(s.kept, f)
		case <-timeout:
			s.t.Fatalf("no %s frame within 15 s; seen: %s", kind, s.seen())
		}
	}
}

func (s *socket) seen() string {
	var b strings.Builder
	for _, f := range s.kept {
		fmt.Fprintln(&b, f.raw)
	}
	return b.String()
}

// wantError waits for an error frame with the code.
func (s *socket) wantError(code string) frame {
	s.t.Helper()
	return s.wantThat("error", func(f frame) bool { return f.fields["code"] == code })
}

// wantClose waits until the server has closed, and returns how.
func (s *socket) wantClose(code int, reason string) {
	s.t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case _, ok := <-s.frames:
			if ok {
				continue
			}
			c := <-s.closed
			s.closed <- c
			if c.Code != code || (reason != "" && c.Text != reason) {
				s.t.Fatalf("closed with %d %q, want %d %q", c.Code, c.Text, code, reason)
			}
			return
		case <-timeout:
			s.t.Fatalf("not closed within 15 s, want %d %q", code, reason)
		}
	}
}

// operation publishes and waits for the acknowledgement.
func (s *socket) operation(id string, payload any) frame {
	s.t.Helper()
	s.send(map[string]any{"type": "operation", "id": id, "payload": payload})
	return s.wantThat("ack", func(f frame) bool { return f.fields["re"] == id })
}
