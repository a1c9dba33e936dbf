package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// What requests in a row are answered with: a request that says twice how
// long it is ends the connection wherever it comes, and nothing else does.
func TestFraming(t *testing.T) {
	const (
		get     = "GET /good HTTP/1.1\r\nHost: x\r\n\r\n"
		sized   = "POST /good HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
		chunked = "POST /good HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n3\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n"
		twice   = "POST /twice HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
		end     = "0\r\n\r\n"
		last    = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		old     = "POST /twice HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
	)
	rec := newRecorder(t)
	g := start(t, toUpstream(Upstream{Targets: []string{rec.url}}))
	for name, probe := range map[string]struct{ stream, want string }{
		"alone":               {twice + end + last, "400"},
		"without its body":    {twice, "400"},
		"that waits":          {strings.Replace(twice, "Host", "Expect: 100-continue\r\nHost", 1), "400"},
		"after none":          {get + twice + end + last, "200 400"},
		"after a length":      {sized + twice + end + last, "200 400"},
		"after a fold":        {strings.Replace(sized, "Length: 3", "Length:\r\n 3", 1) + twice + end + last, "200 400"},
		"after chunks":        {chunked + twice + end + last, "200 400"},
		"after many":          {strings.Repeat(get+sized+chunked, 10) + twice + end + last, strings.Repeat("200 ", 30) + "400"},
		"after what is owed":  {sized + "\r\n" + twice + end + last, "200 400"}, // a POST may be followed by a line end
		"after the server's":  {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + twice + end + last, "200 400"},
		"of the server":       {strings.Replace(twice, "POST /twice", "OPTIONS *", 1) + end + last, "400"},
		"to a bad path":       {strings.Replace(twice, "/twice", "/../x", 1) + end + last, "400"},
		"names in capitals":   {"POST /twice HTTP/1.1\r\nHost: x\r\nCONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n" + end + last, "400"},
		"a length of no use":  {"POST /twice HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\nTransfer-Encoding: chunked\r\n\r\n" + end + last, "400"},
		"folded":              {"POST /twice HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\tchunked\r\nContent-Length:\r\n 5\r\n\r\n" + end + last, "400"},
		"bare LF":             {"POST /twice HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 5\n\n" + end + last, "400"},
		"HTTP/1.0":            {old + end + last, "400"},
		"HTTP/1.0 and length": {sized + strings.Replace(old, "Transfer", "Content-Length: 5\r\nTransfer", 1) + end + last, "200 400"},

		"in a body":           {strings.Replace(sized, "3\r\n\r\nabc", fmt.Sprintf("%d\r\n\r\n%s", len(twice), twice), 1) + last, "200 200"},
		"in a chunk":          {strings.Replace(chunked, "3\r\nabc", fmt.Sprintf("%X\r\n%s", len(twice), twice), 1) + last, "200 200"},
		"in a body, folded":   {strings.Replace(sized, ": 3\r\n\r\nabc", fmt.Sprintf(":\r\n %d\r\n\r\n%s", len(twice), twice), 1) + last, "200 200"},
		"in the next chunk":   {strings.Replace(chunked, "3\r\nabc", fmt.Sprintf("%X\r\n%s", len(get+twice), get+twice), 1) + last, "200 200"},
		"in a chunk's size":   {strings.Replace(chunked, "3\r\n", "3;Content-Length: 5\r\n", 1) + last, "200 200"},
		"in a trailer":        {strings.Replace(chunked, "X-Trailer: a", "X-Trailer: a\r\n Content-Length: 5", 1) + last, "200 200"},
		"in a fold":           {strings.Replace(chunked, "Host: x", "Host: x\r\nX-A: b\r\n Content-Length: 5", 1) + last, "200 200"},
		"in a value":          {strings.Replace(chunked, "Host: x", "Host: x\r\nX-A: Content-Length: 5", 1) + last, "200 200"},
		"names alike":         {strings.Replace(chunked, "Host: x", "Host: x\r\nContent-Lengths: 5\r\nXContent-Length: 5\r\nContent-Lengt: 5", 1) + last, "200 200"},
		"one each":            {sized + chunked + sized + chunked + last, "200 200 200 200 200"},
		"HTTP/1.0 kept alive": {"POST /good HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc" + last, "200 200"},
	} {
		for how, send := range map[string]func(io.Writer, string){"at once": writeAll, "byte by byte": writeBytes} {
			t.Run(name+", "+how, func(t *testing.T) {
				c := dial(t, g.address())
				send(c, probe.stream)
				if got := answersTo(t, bufio.NewReader(c)); got != probe.want {
					t.Errorf("%s, want %s", got, probe.want)
				}
				if got := rec.take(); strings.HasSuffix(probe.want, "400") && (strings.Contains(got, "/twice") || strings.Contains(got, "/last")) {
					t.Errorf("the upstream got %q", got)
				}
			})
		}
	}
	if g.failures(reasonFraming) == 0 {
		t.Error("not counted")
	}
}

func writeAll(w io.Writer, s string) { _, _ = io.WriteString(w, s) }

// writeBytes stops where the other end has.
func writeBytes(w io.Writer, s string) {
	for i := range len(s) {
		if _, err := io.WriteString(w, s[i:i+1]); err != nil {
			return
		}
	}
}

// answersTo returns the statuses of all responses on a connection.
func answersTo(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var statuses []string
	for {
		res, err := http.ReadResponse(r, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is not closed")
		}
		if err != nil {
			return strings.Join(statuses, " ")
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, res.Status[:3])
		if res.StatusCode == 400 && (!res.Close || !bytes.Contains(b, []byte(`"framing"`))) {
			t.Errorf("%v %s", res.Header, b)
		}
	}
}

// Under TLS it cannot be seen whether a request says twice how long it is;
// where it may, it is the last one.
func TestFramingUnderTLS(t *testing.T) {
	cert, key := certificate(t)
	cfg := routes(Route{Use: "webapp"})
	cfg.Listeners[0].TLS = &TLSFiles{Cert: cert, Key: key}
	cfg.Handlers = map[string]http.Handler{"webapp": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/interim":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNoContent)
		case "/written":
			_, _ = io.Copy(w, r.Body)
		}
	})}
	g := start(t, cfg)
	const last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for name, probe := range map[string]struct{ request, want string }{
		"no body": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200 200"},
		"length":  {"POST /written HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "200 200"},
		"chunks":  {"POST /written HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200"},
		"both":    {"POST /interim HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "103 204"},
		"old":     {"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tls.Client(dial(t, g.address()), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			writeAll(c, probe.request+last)
			var all bytes.Buffer
			if got := answersTo(t, bufio.NewReader(io.TeeReader(c, &all))); got != probe.want {
				t.Errorf("%s, want %s", got, probe.want)
			}
			if n := strings.Count(all.String(), "Connection: close\r\n"); n != 1 {
				t.Errorf("it is announced %d times: %q", n, all.String())
			}
		})
	}
}

// What is sent on a socket are no requests.
func TestFramingEndsWithAnUpgrade(t *testing.T) {
	g := start(t, toUpstream(Upstream{Targets: []string{echoSocket(t).URL}}))
	c := dialSocket(t, "ws://"+g.address()+"/")
	echo(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
	if s := g.sessions.all(nil); len(s) != 1 || s[0].conn.framing.Load() != nil {
		t.Errorf("%d sessions, or the socket is followed", len(s))
	}
	_ = c.WriteMessage(websocket.CloseMessage, nil)
}

var (
	hasLength = regexp.MustCompile(`(?im)^content-length:`)
	hasCoding = regexp.MustCompile(`(?im)^transfer-encoding:`)
)

// Of every request that net/http takes it is known how it is framed, however
// the bytes come in.
func FuzzFraming(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n3 \r\nabc\r\n0\r\nX-Trailer: a\r\n b\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding:\n chunked\nContent-Length:\n\t5\n\n0\r\n\r\n",
		"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc\r\n\r\nPOST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 10 \r\n \r\n\r\nabcdefghijGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\nTransfer-Encoding: chunked\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(s), []byte{0})
		f.Add([]byte(s), []byte{6, 1, 30})
	}
	f.Fuzz(func(t *testing.T, stream, steps []byte) {
		var whole, parts framing
		whole.follow(stream)
		for i, rest := 0, stream; len(rest) > 0; i++ {
			n := len(rest)
			if len(steps) > 0 {
				n = min(n, 1+int(steps[i%len(steps)]))
			}
			parts.follow(rest[:n])
			rest = rest[n:]
		}
		if stateOf(&whole) != stateOf(&parts) {
			t.Fatalf("%+v at once, %+v in steps", stateOf(&whole), stateOf(&parts))
		}
		compareFraming(t, &whole, stream)
	})
}

// compareFraming reads a stream as an http.Server does.
func compareFraming(t *testing.T, f *framing, stream []byte) {
	source := bytes.NewReader(stream)
	r := bufio.NewReader(source)
	at := func() int { return len(stream) - source.Len() - r.Buffered() }
	for method := ""; ; {
		if method == http.MethodPost {
			ends, _ := r.Peek(4)
			_, _ = r.Discard(len(ends) - len(bytes.TrimLeft(ends, "\r\n")))
		}
		from := at()
		req, err := http.ReadRequest(r)
		if err != nil || req.ProtoMajor != 1 {
			return
		}
		head := stream[from:at()]
		want := framedOnce
		if chunked := len(req.TransferEncoding) > 0; chunked && hasLength.Match(head) || req.ProtoMinor == 0 && hasCoding.Match(head) {
			want = framedTwice
		}
		if got := f.next(); got != want {
			t.Fatalf("%d, want %d: %q", got, want, head)
		}
		if want == framedTwice {
			return
		}
		_, err = io.Copy(io.Discard, req.Body)
		if err == io.ErrUnexpectedEOF && f.heads.Load() != f.served {
			t.Fatalf("%d heads, with the body of number %d still to come", f.heads.Load(), f.served)
		}
		if err != nil {
			return
		}
		method = req.Method
	}
}

// framingState is what a framing knows, to be compared.
type framingState struct {
	heads          int64
	twice          bool
	at, field      position
	last, matched  byte
	length, coding bool
	name           string
	left           uint64
}

func stateOf(f *framing) framingState {
	return framingState{
		heads: f.heads.Load(), twice: f.ambiguous.Load() != 0, at: f.at, field: f.field, last: f.last,
		matched: f.matched, length: f.length, coding: f.coding, name: f.name, left: f.left,
	}
}

// BenchmarkFraming is what following costs for each request of a browser.
func BenchmarkFraming(b *testing.B) {
	request := []byte("GET /static/tandem.js HTTP/1.1\r\nHost: tandem.example\r\nConnection: keep-alive\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
		"Accept: */*\r\nReferer: https://tandem.example/documents/7\r\nAccept-Encoding: gzip, deflate, br\r\n" +
		"Accept-Language: en-US,en;q=0.9\r\nCookie: tandem=ABCDEFGHIJKLMNOPQRSTUVWXYZ234567\r\n\r\n")
	var f framing
	b.ReportAllocs()
	b.SetBytes(int64(len(request)))
	for b.Loop() {
		f.follow(request)
	}
	if f.heads.Load() != int64(b.N) {
		b.Errorf("%d heads of %d", f.heads.Load(), b.N)
	}
}
