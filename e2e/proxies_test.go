package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

// A replica behind a balancer that ends TLS: the addresses, the protocol and the host are the client's, for whoever
// comes through the trusted proxy, and nobody else's claims are believed.
func TestBehindATrustedProxy(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	trusting := startReplica(t, settings{redis: redis.URL(), more: "trusted_proxies: [127.0.0.1]\n"})
	strict := startReplica(t, settings{redis: redis.URL()})
	// Requests as a balancer would pass them on for a client at an address.
	from := func(p *person, method, rawURL, client string, form url.Values) *http.Request {
		req := p.request(method, rawURL, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-Forwarded-For", "192.0.2.66, "+client) // the client lied about the first
		req.Header.Set("X-Forwarded-Proto", "https")
		req.Header.Set("X-Forwarded-Host", "site.test")
		req.Header.Set("Origin", "https://site.test")
		return req
	}
	credentials := url.Values{"username": {"ada"}, "password": {password}}

	ada := newPerson(t)
	a := ada.do(from(ada, http.MethodPost, trusting.url+"/register", "203.0.113.9", credentials))
	if a.status != http.StatusSeeOther || !strings.Contains(a.header.Get("Set-Cookie"), "; Secure") {
		t.Fatalf("register over TLS: %d %q %s", a.status, a.header["Set-Cookie"], a.body)
	}
	var list struct {
		Items []struct{ Address string }
	}
	trusting.adminJSON(http.MethodGet, "sessions?user=ada", nil, &list)
	if len(list.Items) != 1 || list.Items[0].Address != "203.0.113.9" {
		t.Errorf("sessions are listed as %+v", list.Items)
	}
	// The same claims, from somebody who is nobody's proxy: the page is another site's.
	if a := ada.do(from(ada, http.MethodPost, strict.url+"/login", "203.0.113.9", credentials)); a.status != http.StatusForbidden {
		t.Errorf("a forged X-Forwarded-Host makes another site's form our own: %d", a.status)
	}

	t.Run("sockets", func(t *testing.T) {
		open := func(r *replica, origin string) int {
			h := http.Header{"Origin": {origin}, "X-Forwarded-Host": {"site.test"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.9"}}
			c, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(r.url, "http")+"/ws/documents/x", h)
			if err == nil {
				c.Close()
			}
			return resp.StatusCode
		}
		for _, c := range []struct {
			replica *replica
			origin  string
			want    int
		}{
			{trusting, "https://site.test", http.StatusSwitchingProtocols},
			{trusting, "http://site.test", http.StatusForbidden},
			{trusting, trusting.url, http.StatusForbidden},
			{strict, "https://site.test", http.StatusForbidden},
			{strict, strict.url, http.StatusSwitchingProtocols},
		} {
			if got := open(c.replica, c.origin); got != c.want {
				t.Errorf("a socket from %s: %d, want %d", c.origin, got, c.want)
			}
		}
	})

	// Ten failures are one address's own business: not the proxy's, and not evaded by writing other addresses.
	t.Run("throttle", func(t *testing.T) {
		mallory := newPerson(t)
		guess := func(r *replica, client string, i int) int {
			return mallory.do(from(mallory, http.MethodPost, r.url+"/login", client,
				url.Values{"username": {fmt.Sprintf("user%d", i)}, "password": {"wrong password"}})).status
		}
		for i := range 10 {
			if got := guess(trusting, "203.0.113.66", i); got != http.StatusUnauthorized {
				t.Fatalf("attempt %d: %d", i, got)
			}
		}
		if got := guess(trusting, "203.0.113.66", 11); got != http.StatusTooManyRequests {
			t.Errorf("after ten failures: %d", got)
		}
		if got := guess(trusting, "203.0.113.67", 12); got != http.StatusUnauthorized {
			t.Errorf("another client of the same proxy: %d", got)
		}
	})
	if log := trusting.out.String(); strings.Contains(log, "192.0.2.66") || !strings.Contains(log, `"client":"203.0.113.9:0"`) {
		t.Error("the access log names somebody else")
	}
}
