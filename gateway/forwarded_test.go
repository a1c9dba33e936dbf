package gateway

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func networks(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	n, err := ParseNetworks(texts)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseNetworks(t *testing.T) {
	n := networks(t, "10.0.0.0/8", "192.0.2.7", "::ffff:192.0.2.8", "2001:db8::1")
	if len(n) != 4 || n[1].String() != "192.0.2.7/32" || n[2].String() != "192.0.2.8/32" || n[3].String() != "2001:db8::1/128" {
		t.Error(n)
	}
	for _, text := range []string{"", "10.0.0.0/33", "localhost", "privat", "10.0.0.0-10.0.0.9"} {
		if _, err := ParseNetworks([]string{text}); err == nil || !strings.Contains(err.Error(), "allowed are") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The way of a request, from the reports of the proxies in front.
func TestOrigin(t *testing.T) {
	const near = "10.0.0.1:4000" // a trusted proxy
	for name, c := range map[string]struct {
		peer   string
		header http.Header
		client string
		scheme string
		host   string
		via    string
	}{
		"nobody in front": {"203.0.113.9:5", nil, "203.0.113.9:5", "http", "h", "203.0.113.9"},
		"not trusted": {"203.0.113.9:5", http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil"}, "Forwarded": {"for=192.0.2.1"}},
			"203.0.113.9:5", "http", "h", "203.0.113.9"},
		"trusted and silent": {near, nil, near, "http", "h", "10.0.0.1"},
		"one proxy": {near, http.Header{"X-Forwarded-For": {"203.0.113.9"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"site.test:8443"}},
			"203.0.113.9:0", "https", "site.test:8443", "203.0.113.9, 10.0.0.1"},
		"the client made some up": {near, http.Header{"X-Forwarded-For": {"192.0.2.1, 198.51.100.2", "203.0.113.9"}},
			"203.0.113.9:0", "http", "h", "203.0.113.9, 10.0.0.1"},
		"two proxies": {near, http.Header{"X-Forwarded-For": {"192.0.2.1,203.0.113.9 , 10.9.9.9"}},
			"203.0.113.9:0", "http", "h", "203.0.113.9, 10.9.9.9, 10.0.0.1"},
		"all trusted":        {near, http.Header{"X-Forwarded-For": {"10.3.3.3, 10.2.2.2"}}, "10.3.3.3:0", "http", "h", "10.3.3.3, 10.2.2.2, 10.0.0.1"},
		"garbage":            {near, http.Header{"X-Forwarded-For": {"203.0.113.9, bogus"}}, near, "http", "h", "10.0.0.1"},
		"garbage before":     {near, http.Header{"X-Forwarded-For": {"<script>, 10.2.2.2"}}, "10.2.2.2:0", "http", "h", "10.2.2.2, 10.0.0.1"},
		"unknown":            {near, http.Header{"X-Forwarded-For": {"unknown"}}, near, "http", "h", "10.0.0.1"},
		"with a port":        {near, http.Header{"X-Forwarded-For": {"203.0.113.9:51234"}}, "203.0.113.9:51234", "http", "h", "203.0.113.9, 10.0.0.1"},
		"IPv6":               {near, http.Header{"X-Forwarded-For": {"2001:db8::7"}}, "[2001:db8::7]:0", "http", "h", "2001:db8::7, 10.0.0.1"},
		"IPv6 with a port":   {near, http.Header{"X-Forwarded-For": {"[2001:db8::7]:44"}}, "[2001:db8::7]:44", "http", "h", "2001:db8::7, 10.0.0.1"},
		"mapped IPv4":        {"[::ffff:10.0.0.1]:4000", http.Header{"X-Forwarded-For": {"::ffff:203.0.113.9"}}, "203.0.113.9:0", "http", "h", "203.0.113.9, 10.0.0.1"},
		"only the protocol":  {near, http.Header{"X-Forwarded-Proto": {"HTTPS"}}, near, "https", "h", "10.0.0.1"},
		"a socket's":         {near, http.Header{"X-Forwarded-Proto": {"wss"}}, near, "https", "h", "10.0.0.1"},
		"appended protocols": {near, http.Header{"X-Forwarded-Proto": {"http, https"}, "X-Forwarded-Host": {"evil.test, site.test"}}, near, "https", "site.test", "10.0.0.1"},
		"bad protocol, host": {near, http.Header{"X-Forwarded-Proto": {"gopher"}, "X-Forwarded-Host": {"a b/c"}}, near, "http", "h", "10.0.0.1"},

		"Forwarded":             {near, http.Header{"Forwarded": {`for=203.0.113.9;proto=https;host=site.test`}}, "203.0.113.9:0", "https", "site.test", "203.0.113.9, 10.0.0.1"},
		"Forwarded, forged":     {near, http.Header{"Forwarded": {`for=192.0.2.1;proto=https;host=evil`, `FOR="203.0.113.9:77" ; Proto=http`}}, "203.0.113.9:77", "http", "h", "203.0.113.9, 10.0.0.1"},
		"Forwarded, two":        {near, http.Header{"Forwarded": {`for="[2001:db8::7]";proto=https;by=_x, for=10.2.2.2;proto=http`}}, "[2001:db8::7]:0", "https", "h", "2001:db8::7, 10.2.2.2, 10.0.0.1"},
		"Forwarded, obfuscated": {near, http.Header{"Forwarded": {`for=203.0.113.9, for=_hidden`}}, near, "http", "h", "10.0.0.1"},
		"Forwarded, malformed":  {near, http.Header{"Forwarded": {`for="203.0.113.9`}}, near, "http", "h", "10.0.0.1"},
		"Forwarded, quoting":    {near, http.Header{"Forwarded": {`secret="a, for=192.0.2.1\", x";for=203.0.113.9`}}, "203.0.113.9:0", "http", "h", "203.0.113.9, 10.0.0.1"},
		"both":                  {near, http.Header{"Forwarded": {"for=192.0.2.1"}, "X-Forwarded-For": {"203.0.113.9"}}, "203.0.113.9:0", "http", "h", "203.0.113.9, 10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &Gateway{cfg: Config{TrustedProxies: networks(t, "10.0.0.0/8")}}
			r, _ := http.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Host, r.Header = c.peer, "h", c.header
			o := g.originOf(r)
			if o.client != c.client || o.scheme != c.scheme || o.host != c.host || o.via != c.via {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for=192.0.2.1;proto=https;host="a\"b", for="[::1]:80"`, "1.2.3.4, [::1]:5")
	f.Add(`,;=for="`, ",,")
	f.Fuzz(func(t *testing.T, forwarded, forwardedFor string) {
		for _, h := range []http.Header{{"Forwarded": {forwarded}}, {"X-Forwarded-For": {forwardedFor}, "X-Forwarded-Host": {forwarded}}} {
			g := &Gateway{cfg: Config{TrustedProxies: privateNetworks}}
			o := g.originOf(&http.Request{RemoteAddr: "10.0.0.1:1", Host: "h", Header: h})
			if _, err := netip.ParseAddrPort(o.client); err != nil || !strings.HasSuffix(o.via, "10.0.0.1") || !validHost(o.host) {
				t.Errorf("%q %q: %+v", forwarded, forwardedFor, o)
			}
		}
	})
}

// What an upstream and the admin list hear of a client behind a trusted proxy,
// and of one that only claims to be.
func TestForwardedToUpstreams(t *testing.T) {
	up := upstream(t, showHeader)
	cfg := routes(
		Route{Host: "inside.test", Path: "/", Upstream: &Upstream{Targets: []string{up.URL}, StripPrefix: true}},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}}},
	)
	header := []string{"Host", "site.test", "X-Forwarded-For", "192.0.2.1, 203.0.113.9", "X-Forwarded-Proto", "https",
		"X-Forwarded-Host", "inside.test", "X-Forwarded-Port", "443", "X-Real-IP", "192.0.2.1", "Forwarded", "for=192.0.2.2"}

	stranger := get(t, start(t, cfg).url(), header...)
	for _, forged := range []string{"192.0.2", "203.0.113", "https", "inside.test", "X-Forwarded-Port", "X-Real-Ip", "Forwarded: "} {
		if strings.Contains(stranger.body, forged) {
			t.Errorf("%s arrived: %s", forged, stranger.body)
		}
	}

	cfg.TrustedProxies = networks(t, "127.0.0.1")
	g := start(t, cfg)
	trusted := get(t, g.url(), header...)
	for _, line := range []string{"Host: site.test\n", "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: inside.test\r\n", "X-Forwarded-Port: 443\r\n"} {
		if !strings.Contains(trusted.body, line) {
			t.Errorf("%q is not in %s", line, trusted.body)
		}
	}
	if strings.Contains(trusted.body, "Forwarded: for") || strings.Contains(trusted.body, "192.0.2.1,") {
		t.Error(trusted.body)
	}
}

// IPv4 networks in the form of IPv6 ones mean the same.
func TestMappedNetworks(t *testing.T) {
	networks, err := ParseNetworks([]string{"::ffff:10.0.0.0/104", "::ffff:192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{cfg: Config{TrustedProxies: networks}}
	for text, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "192.0.2.1": true, "11.0.0.1": false, "::1": false} {
		if g.trusts(netip.MustParseAddr(text)) != want {
			t.Errorf("%s: want %v", text, want)
		}
	}
}
