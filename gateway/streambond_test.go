package gateway

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// endlessUpstream sends one event and is silent at /stream/events, and a piece
// of a download now and then elsewhere, until it is left.
func endlessUpstream(t *testing.T) *httptest.Server {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		pause := 50 * time.Millisecond
		if r.URL.Path == "/stream/events" {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			pause = time.Hour
		}
		for {
			_, _ = io.WriteString(w, "data: piece\n\n")
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
	})
}

// openStream starts a response as the user of a session.
func openStream(t *testing.T, g *Gateway, path, id string) *http.Response {
	t.Helper()
	res, err := http.DefaultTransport.RoundTrip(request(t, http.MethodGet, g.url()+path, "Cookie", "tandem="+id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); res.StatusCode != http.StatusOK || err != nil || !strings.HasPrefix(line, "data") {
		t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	return res
}

// Events stop with the session, although nothing flows, and so does a download
// that takes long. Another ID of the same session is no end.
func TestLongResponsesEndWithTheirSessions(t *testing.T) {
	t.Parallel()
	g, f := bondSite(t, redistest.Mini(t), sessionstore.WatchConfig{VerifyEvery: time.Second})
	whole := openStream(t, g, "/stream/download", loginAs(t, f, "eve").ID())
	for i, path := range []string{"/stream/events", "/stream/download"} {
		ada := loginAs(t, f, "ada")
		res := openStream(t, g, path, ada.ID())
		if err := ada.Rotate(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := f.EndHandle(t.Context(), ada.Handle(), sessionstore.ReasonLogout); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Errorf("%s ended as if it were whole", path)
		}
		eventually(t, "the count", func() bool { return g.failures(reasonSessionEnded) == float64(i+1) })
	}
	if _, err := io.CopyN(io.Discard, whole.Body, int64((longAfter+time.Second)/(50*time.Millisecond))*int64(len("data: piece\n\n"))); err != nil {
		t.Errorf("cut with its session alive: %v", err)
	}
}
