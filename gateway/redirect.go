package gateway

import (
	"net"
	"net/http"
	"strings"
)

// redirect sends every request to the same host and path over TLS, with 308
// so that a form that was sent is sent again as it was.
type redirect struct {
	g    *Gateway
	port string // "": the port of the first listener that has TLS
}

func (d redirect) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host = strings.Trim(host, "[]"); strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if !validHost(host) {
		exchangeFrom(r.Context()).refuse(r, reasonNoRoute, nil) // HTTP/1.0 may have none
		return
	}
	port := d.port
	if port == "" {
		port = d.g.tlsPort()
	}
	if port != "" && port != "443" {
		host += ":" + port
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.WriteHeader(http.StatusPermanentRedirect)
}

// tlsPort is the port of the first listener that speaks HTTP over TLS, ""
// without one.
func (g *Gateway) tlsPort() string {
	for _, l := range g.current() {
		if l.certificate.Load() != nil && l.server != nil {
			if _, port, err := net.SplitHostPort(l.socket.Addr().String()); err == nil {
				return port
			}
		}
	}
	return ""
}

// redirectPort reads Listener.Redirect: "https", or "https:" and a port.
func redirectPort(s string) (port string, ok bool) {
	port, ok = strings.CutPrefix(s, "https")
	if port == "" || !ok {
		return "", ok
	}
	port, ok = strings.CutPrefix(port, ":")
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 || strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	return port, ok
}
