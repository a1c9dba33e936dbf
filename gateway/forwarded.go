package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// privateNetworks is what the word "private" stands for in ParseNetworks:
// loopback, RFC 1918, RFC 4193 and link-local addresses.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
}

// ParseNetworks reads networks for Config.TrustedProxies: "10.0.0.0/8",
// single addresses, and "private" for every network that is not public.
func ParseNetworks(texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range texts {
		if text == "private" {
			networks = append(networks, privateNetworks...)
			continue
		}
		if address, err := netip.ParseAddr(text); err == nil {
			networks = append(networks, netip.PrefixFrom(plainAddress(address), plainAddress(address).BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf(`%q is not a network: allowed are 10.0.0.0/8, single addresses, and "private"`, text)
		}
		if address := prefix.Addr(); address.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(address.Unmap(), prefix.Bits()-96) // addresses are compared in that form
		}
		networks = append(networks, prefix.Masked())
	}
	return networks, nil
}

// plainAddress is a without what makes equal addresses differ: a zone, and an
// IPv4 address in the form of an IPv6 one.
func plainAddress(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// origin is where a request comes from, as far as that can be believed: what
// the connection tells, or in the words of proxies that are trusted.
type origin struct {
	client string // address and port like http.Request.RemoteAddr; port 0 is unknown
	scheme string // "http" or "https": what the client speaks
	host   string // what the client calls this server
	sent   string // the Host header as it came
	via    string // X-Forwarded-For of an upstream: the client, and the proxies that are known to stand between
	proxy  bool   // a trusted proxy told it
}

// hop is one step of a request's way as a proxy reported it.
type hop struct {
	from        netip.AddrPort // who the proxy heard it from; invalid: not told
	proto, host string         // what it heard, empty: not told
}

// originOf finds out where r comes from. The reports of proxies are believed
// from the last one backwards, for as long as the one who made them is
// trusted: the client is the first address that is not. What stands before it
// anybody could have made up, and is not passed on.
func (g *Gateway) originOf(r *http.Request) origin {
	o := origin{client: r.RemoteAddr, scheme: "http", host: r.Host, sent: r.Host}
	if r.TLS != nil {
		o.scheme = "https"
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return o
	}
	o.via = plainAddress(peer.Addr()).String()
	if !g.trusts(peer.Addr()) {
		return o
	}
	o.proxy = true
	hops := reportedHops(r.Header)
	for i := len(hops) - 1; i >= 0; i-- {
		h := hops[i]
		o.believe(h.proto, h.host)
		if !h.from.IsValid() {
			break
		}
		o.client = h.from.String()
		o.via = h.from.Addr().String() + ", " + o.via
		if !g.trusts(h.from.Addr()) {
			break
		}
	}
	return o
}

func (g *Gateway) trusts(a netip.Addr) bool {
	a = plainAddress(a)
	for _, network := range g.cfg.TrustedProxies {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

// believe takes over what a proxy said about the protocol and the host, if it
// makes sense.
func (o *origin) believe(proto, host string) {
	switch strings.ToLower(proto) {
	case "https", "wss":
		o.scheme = "https"
	case "http", "ws":
		o.scheme = "http"
	}
	if validHost(host) {
		o.host = host
	}
}

// apply makes r look as if it came from the client itself, for everything
// that reads it later: RemoteAddr, the scheme of the URL (which is otherwise
// empty, or whatever the client wrote), Host. Routes are chosen before, by the
// Host that was sent, and upstreams get that one: a proxy that guards hosts
// must not be talked past.
func (o origin) apply(r *http.Request) {
	r.RemoteAddr, r.URL.Scheme, r.Host = o.client, o.scheme, o.host
}

// reportedHops reads what proxies reported, the first one first: from
// X-Forwarded-For, -Proto and -Host, or where there is none of them, from
// Forwarded (RFC 7239).
func reportedHops(h http.Header) []hop {
	forwardedFor, protos, hosts := listed(h["X-Forwarded-For"]), listed(h["X-Forwarded-Proto"]), listed(h["X-Forwarded-Host"])
	if len(forwardedFor)+len(protos)+len(hosts) == 0 {
		return forwardedHops(h["Forwarded"])
	}
	hops := make([]hop, max(len(forwardedFor), 1))
	for i, text := range forwardedFor {
		hops[i].from, _ = parseHop(text)
	}
	// Few proxies append to these two; the last value is the nearest one's.
	last := &hops[len(hops)-1]
	if len(protos) > 0 {
		last.proto = protos[len(protos)-1]
	}
	if len(hosts) > 0 {
		last.host = hosts[len(hosts)-1]
	}
	return hops
}

// listed splits header lines at their commas.
func listed(lines []string) []string {
	var items []string
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			items = append(items, strings.TrimSpace(item))
		}
	}
	return items
}

// forwardedHops reads Forwarded. A line that is malformed makes all that
// stands before its fault worthless: nobody knows who wrote it.
func forwardedHops(lines []string) []hop {
	var hops []hop
	for _, line := range lines {
		rest := line
		current, ok := hop{}, true
		for ok && rest != "" {
			var name, value, separator string
			name, value, separator, rest, ok = forwardedPair(rest)
			switch name {
			case "for":
				current.from, _ = parseHop(value)
			case "proto":
				current.proto = value
			case "host":
				current.host = value
			}
			if separator == "," || rest == "" {
				hops = append(hops, current)
				current = hop{}
			}
		}
		if !ok {
			hops = append(hops, hop{})
		}
	}
	return hops
}

// forwardedPair cuts the first name=value of a Forwarded line, and what
// separates it from the next.
func forwardedPair(s string) (name, value, separator, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	end := strings.IndexAny(s, "=;,")
	if end < 0 || s[end] != '=' {
		if end == 0 { // an empty element or pair is allowed in lists
			return "", "", s[:1], s[1:], true
		}
		return "", "", "", "", s == ""
	}
	name, s = strings.ToLower(s[:end]), s[end+1:]
	if strings.HasPrefix(s, `"`) {
		value, s, ok = quotedString(s)
		if !ok {
			return "", "", "", "", false
		}
	} else {
		end = strings.IndexAny(s, ";, \t")
		if end < 0 {
			end = len(s)
		}
		value, s = s[:end], s[end:]
	}
	if s = strings.TrimLeft(s, " \t"); s == "" {
		return name, value, "", "", true
	}
	if s[0] != ';' && s[0] != ',' {
		return "", "", "", "", false
	}
	return name, value, s[:1], s[1:], true
}

// quotedString cuts a quoted-string of RFC 9110 off s.
func quotedString(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// parseHop reads an address as proxies write it: alone, with a port, an IPv6
// one in brackets or without. "unknown" and made-up names are none.
func parseHop(s string) (netip.AddrPort, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(plainAddress(ap.Addr()), ap.Port()), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(plainAddress(a), 0), true
}

// validHost reports whether s can be a Host header: a name or an address,
// perhaps with a port.
func validHost(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:[]", c)
	})
}

// set puts the request's way in the header of a request to an upstream, from
// which ReverseProxy has removed what is set here, and Forwarded, which would
// say the same in another form. The rest of the family passes if a trusted
// proxy sent it.
func (o origin) set(h http.Header) {
	if !o.proxy {
		for name := range h {
			if strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
				delete(h, name)
			}
		}
	}
	if o.via != "" {
		h["X-Forwarded-For"] = []string{o.via}
	}
	h["X-Forwarded-Host"] = []string{o.host}
	h["X-Forwarded-Proto"] = []string{o.scheme}
}
