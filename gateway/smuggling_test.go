package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is an upstream that keeps every byte it gets, and answers one
// request on each connection.
type recorder struct {
	url string
	mu  sync.Mutex
	got bytes.Buffer
}

func newRecorder(t *testing.T) *recorder {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{url: "http://" + l.Addr().String()}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { rec.serve(c) })
		}
	})
	return rec
}

func (rec *recorder) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(io.TeeReader(c, rec))
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, req.Body)
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

func (rec *recorder) Write(p []byte) (int, error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.got.Write(p)
}

func (rec *recorder) take() string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	s := rec.got.String()
	rec.got.Reset()
	return s
}

var headLine = regexp.MustCompile("^(?:(?:GET|POST|HEAD) [!-~]+ HTTP/1\\.1|[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\\t\\x20-\\x7e\\x80-\\xff]*)$")

// ambiguity says in what a head can be read in two ways; "" if in none.
func ambiguity(head string) string {
	framings := 0
	for line := range strings.SplitSeq(head, "\r\n") {
		switch lower := strings.ToLower(line); {
		case !headLine.MatchString(line):
			return "a line that is no field line: " + line
		case strings.HasPrefix(lower, "content-length:"), strings.HasPrefix(lower, "transfer-encoding:"):
			framings++
			if strings.HasPrefix(lower, "transfer") && lower != "transfer-encoding: chunked" {
				return line
			}
		}
	}
	if framings > 1 {
		return "the length is told twice"
	}
	return ""
}

// What two servers in a row could read differently is refused, or told to the
// upstream in the one way that can be read in one way only.
func TestNothingAmbiguousReachesTheUpstream(t *testing.T) {
	rec := newRecorder(t)
	g := start(t, toUpstream(Upstream{Targets: []string{rec.url}}))
	const refused, passed = "refused", "passed"
	const last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	const smuggle = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, probe := range map[string]struct{ request, want string }{
		"as it should be": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", passed},
		"chunked":         {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", passed},

		// Two lengths.
		"CL and TE":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused},
		"TE and CL":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", refused},
		"CL twice, differ":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 40\r\n\r\nabc" + smuggle, refused},
		"CL twice, the same": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", passed},
		"CL list":            {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", refused},
		"CL signed":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", refused},
		"CL negative":        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", refused},
		"CL hex":             {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc", refused},
		"CL empty":           {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", refused},
		"CL too large":       {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", refused},
		"CL with a letter":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3 a\r\n\r\nabc", refused},

		// Transfer-Encoding that one server knows and the next does not.
		"TE xchunked":       {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", refused},
		"TE identity":       {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", refused},
		"TE gzip, chunked":  {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", refused},
		"TE twice":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused},
		"TE twice, another": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", refused},
		"TE quoted":         {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", refused},
		"TE control":        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", refused},
		"TE space before":   {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", refused},
		"TE with a line":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", refused}, // unfolded, it is one
		"TE in HTTP/1.0":    {"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", refused},         // 1.0 has no TE
		"TE, underscore":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", passed},          // another field

		// Chunks.
		"chunk extension":        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", passed}, // left out
		"chunk extension, LF":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;\nabc\r\n0\r\n\r\n" + smuggle, refused},
		"chunk size, LF":         {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", refused},
		"chunk size signed":      {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", refused},
		"chunk size 0x":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", refused},
		"chunk size too large":   {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc", refused},
		"chunk size negative":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc", refused},
		"chunk data without end": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", refused},
		"trailer that frames":    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", refused},

		// Lines.
		"space before the colon": {"GET / HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n", refused},
		"tab before the colon":   {"GET / HTTP/1.1\r\nHost: x\r\nX-A\t: b\r\n\r\n", refused},
		"no colon":               {"GET / HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n", refused},
		"no name":                {"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", refused},
		"space at first":         {"GET / HTTP/1.1\r\n Host: x\r\n\r\n", refused},
		"NUL in a value":         {"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n", refused},
		"CR in a value":          {"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\rX-B: c\r\n\r\n", refused},
		"CR as the line's end":   {"GET / HTTP/1.1\rHost: x\r\r", refused},
		"folded":                 {"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n", passed}, // unfolded (RFC 9112, 5.2)
		"bare LF":                {"GET / HTTP/1.1\nHost: x\nX-A: b\n\n", passed},               // a line's end (RFC 9112, 2.2); passed on as CR LF
		"CRLF before":            {"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", refused},            // which a client might send after a body, says 2.2
		"byte before":            {"\x00GET / HTTP/1.1\r\nHost: x\r\n\r\n", refused},
		"name with a space":      {"GET / HTTP/1.1\r\nHost: x\r\nContent Length: 5\r\n\r\n", refused},
		"name in UTF-8":          {"GET / HTTP/1.1\r\nHost: x\r\nX-Ä: 5\r\n\r\n", refused},

		// Request lines and hosts.
		"HTTP/0.9":             {"GET /\r\n", refused},
		"HTTP/2.0 in the line": {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", refused},
		"HTTP/1.10":            {"GET / HTTP/1.10\r\nHost: x\r\n\r\n", refused},
		"HTTP/1.2":             {"GET / HTTP/1.2\r\nHost: x\r\n\r\n", passed},
		"http/1.1":             {"GET / http/1.1\r\nHost: x\r\n\r\n", refused},
		"two spaces":           {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", refused},
		"space in the path":    {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", refused},
		"method with a colon":  {"GET: / HTTP/1.1\r\nHost: x\r\n\r\n", refused},
		"preface":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused},
		"two hosts":            {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", refused},
		"no host":              {"GET / HTTP/1.1\r\n\r\n", refused},
		"host with a path":     {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", refused},
		"host with a user":     {"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n", refused},
		"host with a space":    {"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", refused},
		"whole URI":            {"GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n", passed},                                                                            // the line counts (RFC 9112, 3.2.2)
		"h2c":                  {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", passed}, // without the upgrade
		"length named a hop":   {"POST / HTTP/1.1\r\nHost: x\r\nConnection: content-length\r\nContent-Length: 36\r\n\r\n" + smuggle, passed},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, g.address())
			if _, err := io.WriteString(c, probe.request+last); err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(c) // a reset after the refusal is one, too
			status := firstStatus(string(answer))
			got := rec.take()
			if (probe.want == passed) != (status == "200") {
				t.Errorf("%s: want it %s, got %q", status, probe.want, answer)
			}
			if probe.want == refused && strings.Contains(got, "GET /last") {
				t.Errorf("the connection served another request: %q", got)
			}
			if strings.Contains(got, "GET /smuggled") && !strings.Contains(got, "Content-Length: 36\r\n") {
				t.Errorf("the upstream got %q", got)
			}
			if head, _, ok := strings.Cut(got, "\r\n\r\n"); ok {
				if a := ambiguity(head); a != "" {
					t.Errorf("the upstream got, %s, in\n%q", a, got)
				}
				if lower := strings.ToLower(head); strings.Contains(lower, "h2c") || strings.Contains(lower, "http2-settings") || strings.Contains(lower, "\r\nupgrade") {
					t.Errorf("an upgrade that the gateway does not follow: %q", head)
				}
			}
		})
	}
}

// firstStatus is the status of the first answer on a connection; "cut" if it
// was closed without one.
func firstStatus(answer string) string {
	fields := strings.Fields(answer)
	if len(fields) < 2 {
		return "cut"
	}
	return fields[1]
}

// A head that comes too slowly, or is too large, costs the one who sends it.
func TestHeadLimits(t *testing.T) {
	cfg := toUpstream(Upstream{Targets: []string{newRecorder(t).url}})
	cfg.Listeners = append(cfg.Listeners, cfg.Listeners[0])
	cfg.Listeners[0].Limits.Header = 2 << 10
	cfg.Listeners[1].Limits.HeaderTimeout = 50 * time.Millisecond
	g := start(t, cfg)
	c := dial(t, g.address())
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Large: "+strings.Repeat("x", 16<<10)+"\r\n\r\n")
	if b, err := bufio.NewReader(c).ReadString('\n'); firstStatus(b) != "431" {
		t.Errorf("large: %q %v", b, err)
	}
	c = dial(t, g.Addresses()[1].String())
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow")
	if b, err := io.ReadAll(c); err != nil || firstStatus(string(b)) == "200" {
		t.Errorf("slow: %q %v", b, err)
	}
}
