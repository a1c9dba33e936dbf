package ws

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/problem"
)

// writeBuffer is held only while something is written.
const writeBuffer = 4 << 10

var writeBuffers sync.Pool

var (
	documentID = regexp.MustCompile(`^[A-Za-z0-9._~:-]{1,128}$`)
	hexColor   = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)
)

// admission is what is known of a connection that may be upgraded.
type admission struct {
	document string
	color    string
	cookie   string
	place    Place // taken before the upgrade, zero: none
	origin   endpoint
}

// Documents serves the document sockets. What can be refused is refused in
// HTTP, as a problem document.
func (h *Hub) Documents() http.Handler {
	upgrader := websocket.Upgrader{
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  &writeBuffers,
		HandshakeTimeout: writeTimeout,
		Subprotocols:     []string{Protocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // admit has
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			h.refuse(w, problem.Problem{Status: status, Code: "bad_handshake", Detail: reason.Error()})
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, refusal := h.admit(w, r)
		if refusal == nil {
			if refusal = h.seat(r.Context(), &a); refusal != nil {
				h.discount(a)
			}
		}
		if refusal != nil {
			h.refuse(w, *refusal)
			return
		}
		from := &hijackable{ResponseWriter: w, holds: true}
		ws, err := upgrader.Upgrade(from, r, nil)
		if err != nil {
			h.discount(a)
			return
		}
		c := newConn(h, ws, from, a)
		if !h.register(c) {
			h.discount(a)
			h.metrics.leave(stateConnecting)
			c.wire.answerAlone()
			_ = ws.Close()
			return
		}
		c.start()
		if h.isDraining() {
			c.sendOff(0) // admitted just before
		}
		c.awaitNext()
	})
}

// admit checks an upgrade by what is known without I/O, and counts it.
func (h *Hub) admit(w http.ResponseWriter, r *http.Request) (admission, *problem.Problem) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return admission{}, &problem.Problem{
			Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "A document socket is opened with GET.",
		}
	}
	a := admission{document: h.documentIn(r.URL)}
	if !documentID.MatchString(a.document) {
		return a, &problem.Problem{
			Status: http.StatusBadRequest, Code: "bad_document_id",
			Detail: "A document's ID has 1 to 128 characters of A-Za-z0-9._~:- and is all that follows the route's path.",
		}
	}
	if a.color = r.URL.Query().Get("color"); a.color != "" && !hexColor.MatchString(a.color) {
		return a, &problem.Problem{
			Status: http.StatusBadRequest, Code: "bad_color", Detail: "color: allowed is #rrggbb, written color=%23rrggbb in a URL.",
		}
	}
	if !h.origins.Allow(r) {
		return a, &problem.Problem{
			Status: http.StatusForbidden, Code: "origin_not_allowed", Detail: "Pages of this origin may not open sockets here.",
		}
	}
	if !websocket.IsWebSocketUpgrade(r) || r.Header.Get("Sec-Websocket-Version") != "13" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Version", "13")
		return a, &problem.Problem{
			Status: http.StatusUpgradeRequired, Code: "upgrade_required", Detail: "Documents are served to WebSockets, version 13, only.",
		}
	}
	a.cookie = h.sessionID(r)
	a.origin = endpointOf(r, a.document)
	return a, h.count(a)
}

// count admits one more connection, if there may be one.
func (h *Hub) count(a admission) *problem.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining || h.closed:
		p := problem.Unavailable("This replica is about to stop; connect again to reach another one.")
		p.RetryAfter = time.Second
		return &p
	case !h.available.Load():
		p := problem.Unavailable("Redis is away.")
		return &p
	}
	if wait, ok := h.door.enter(time.Now()); !ok {
		return &problem.Problem{
			Status: http.StatusServiceUnavailable, Code: "too_many_upgrades", RetryAfter: wait,
			Detail: "More sockets are being opened than this replica takes on at a time; come back later.",
		}
	}
	if !h.usage.admit(a.cookie, h.cfg.Limits) {
		return crowded()
	}
	h.admitted++
	return nil
}

// discount takes back what admit and seat counted.
func (h *Hub) discount(a admission) {
	h.cfg.Places.Release(a.place)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.discountLocked(a.cookie, "")
}

// sessionID returns the one of r's cookie, or "". It is a copy: the cookie
// header that it comes in may be long, and the connection lives longer.
func (h *Hub) sessionID(r *http.Request) string {
	id, _ := h.cfg.SessionID(r)
	return strings.Clone(id)
}

// refuse answers an upgrade with a problem document.
func (h *Hub) refuse(w http.ResponseWriter, p problem.Problem) {
	h.metrics.refusals.WithLabelValues(p.Code).Inc()
	problem.JSON(w, p)
}

// documentIn returns what stands where the ID should, decoded.
func (h *Hub) documentIn(u *url.URL) string {
	path := u.EscapedPath()
	rest := path[strings.LastIndexByte(path, '/')+1:]
	longest := 0
	for _, route := range h.cfg.Routes {
		prefix := strings.TrimSuffix(route, "/") + "/"
		if after, ok := strings.CutPrefix(path, prefix); ok && len(prefix) > longest {
			rest, longest = after, len(prefix)
		}
	}
	id, err := url.PathUnescape(rest)
	if err != nil {
		return ""
	}
	return id
}

// hijackable reaches the connection through whatever wraps the
// ResponseWriter; gorilla looks at the outermost wrapper only. It brings a read
// buffer of its own, instead of the large one of net/http: so it is known
// whether anything waits in it. An Upgrader without a ReadBufferSize takes it.
type hijackable struct {
	http.ResponseWriter
	holds bool // the answer to the upgrade goes out with the first frame, and the read buffer is lent

	// Nil before Hijack.
	wire *wire
	in   *lentReader
}

// Hijack implements http.Hijacker.
func (w *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.wire = newWire(conn)
	w.wire.opening = w.holds
	if buffers.Reader.Buffered() > 0 {
		return w.wire, buffers, nil // the client spoke too early, and is refused
	}
	if w.holds && w.wire.socket != nil {
		w.in = newLentReader(w.wire)
	} else {
		w.in = &lentReader{Reader: bufio.NewReaderSize(w.wire, readBuffer)}
	}
	buffers.Reader = w.in.Reader
	return w.wire, buffers, nil
}
