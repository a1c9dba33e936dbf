package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A Node server's events and sockets pass through, know who is there, and end
// with a logout on another replica.
func TestNodeUpstream(t *testing.T) {
	t.Parallel()
	redis, app := redistest.Start(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(app)
	node := startProcess(t, "node", []string{"PORT=" + port}, "node", "apps/live.js")
	eventually(t, 30*time.Second, func() error {
		c, err := net.Dial("tcp", app)
		if err != nil {
			return err
		}
		return c.Close()
	})
	s := settings{redis: redis.URL(), routes: fmt.Sprintf(
		"      - {path: /live/, upstream: {targets: ['http://%s'], login: required}}\n", app) + defaultRoutes}
	here, there := startReplica(t, s), startReplica(t, s)
	ada := newPerson(t)
	ada.register(here.url, "ada")
	cookies := http.Header{}
	for _, c := range ada.cookies(here.url) {
		cookies.Add("Cookie", c.String())
	}
	if a := ada.get(here.url + "/live/x"); a.status != http.StatusOK || a.body != "GET ada" {
		t.Errorf("a page after early hints: %d %q", a.status, a.body)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, here.url+"/live/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = cookies.Clone()
	events, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	lines := bufio.NewReader(events.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "data: hello ada\n" {
		t.Fatalf("events: %d %q %v", events.StatusCode, line, err)
	}

	address := "ws" + strings.TrimPrefix(here.url, "http") + "/live/"
	if _, refused, err := websocket.DefaultDialer.Dial(address+"refused", cookies); err == nil || refused == nil || refused.StatusCode != http.StatusForbidden {
		t.Errorf("a socket that Node refuses: %v %v", refused, err)
	}
	socket, _, err := websocket.DefaultDialer.Dial(address+"socket", cookies)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	_ = socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	for i := range 100 {
		text := fmt.Sprint("message ", i)
		if err := socket.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := socket.ReadMessage(); err != nil || string(b) != text {
			t.Fatalf("%q %v", b, err)
		}
	}

	ada.post(there.url+"/logout", nil)
	var closed *websocket.CloseError
	if _, _, err := socket.ReadMessage(); !errors.As(err, &closed) || closed.Code != 4401 || closed.Text != "logout" {
		t.Errorf("the socket: %v", err)
	}
	if _, err := io.Copy(io.Discard, lines); err == nil {
		t.Error("the events ended as if they were over")
	}
	eventually(t, 30*time.Second, func() error {
		if !strings.Contains(node.out.String(), "events: left") {
			return errors.New("Node still sends events")
		}
		return nil
	})
}
