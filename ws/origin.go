package ws

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Origins decides which pages may open sockets. Browsers send the Origin of
// the page and do not let it lie; a request without one is not a page's.
type Origins struct {
	any, same bool
	allowed   map[string]bool // normalised "scheme://host"
}

// ParseOrigins compiles "same-origin", "*" and full origins such as
// "https://app.example:8443". No entries mean same-origin.
func ParseOrigins(entries []string) (Origins, error) {
	o := Origins{allowed: make(map[string]bool)}
	for _, entry := range entries {
		switch entry {
		case "*":
			o.any = true
		case "same-origin":
			o.same = true
		default:
			u, ok := parseOrigin(entry)
			if !ok {
				return Origins{}, fmt.Errorf(`origin %q: allowed are "same-origin", "*" and full origins such as "https://app.example"`, entry)
			}
			o.allowed[u.Scheme+"://"+u.Host] = true
		}
	}
	if len(entries) == 0 {
		o.same = true
	}
	return o, nil
}

// Allow reports whether r may open a socket.
func (o Origins) Allow(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 || o.any {
		return true
	}
	if len(values) > 1 {
		return false
	}
	u, ok := parseOrigin(values[0])
	if !ok {
		return false
	}
	if o.allowed[u.Scheme+"://"+u.Host] {
		return true
	}
	// Where somebody in front of us ended TLS and is not trusted to tell, the
	// scheme the page was loaded with is not known here.
	secure := r.TLS != nil || r.URL.Scheme == "https"
	return o.same && u.Host == withoutDefaultPort(u.Scheme, r.Host) && (!secure || u.Scheme == "https")
}

// parseOrigin accepts scheme and host only, and normalises both.
func parseOrigin(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, false
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, false
	}
	u.Host = withoutDefaultPort(u.Scheme, u.Host)
	return u, true
}

func withoutDefaultPort(scheme, host string) string {
	host = strings.ToLower(host)
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}
