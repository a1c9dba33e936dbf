package config

import (
	"crypto/tls"
	"fmt"
	"reflect"
	"strings"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// validator checks a decoded configuration: first every value by its tags,
// then the values against each other.
type validator struct {
	*state
	c *Config
}

func (v *validator) run() {
	v.section(reflect.ValueOf(v.c).Elem(), "")
	v.session()
	v.drain()
	v.authorize()
	if len(v.c.Listeners) == 0 && !v.bad["listeners"] {
		v.fault("listeners", "is empty; write at least one listener, or leave the key out for 127.0.0.1:8080")
	}
	for i := range v.c.Listeners {
		v.listener(i)
	}
	v.addresses()
	v.cookie()
	v.assertions()
}

// assertions finds upstreams that want what nobody can sign.
func (v *validator) assertions() {
	if len(v.c.Assertion.KeyFiles) > 0 {
		return
	}
	want := func(u *Upstream, path string) {
		if u != nil && u.Assertion {
			v.fault(join(path, "upstream.assertion"), "needs a key to sign with; write assertion.key_files, or false")
		}
	}
	for i, l := range v.c.Listeners {
		path := fmt.Sprintf("listeners[%d]", i)
		want(l.Upstream, path)
		for j, r := range l.Routes {
			want(r.Upstream, fmt.Sprintf("%s.routes[%d]", path, j))
		}
	}
}

// section checks every value in s, the section at path, by its tags.
func (v *validator) section(s reflect.Value, path string) {
	if v.bad[path] {
		return
	}
	for _, f := range fields(s.Type()) {
		fv, p := s.FieldByIndex(f.Index), join(path, f.key)
		if v.bad[p] {
			continue
		}
		if f.tag("required") != "" && isEmpty(fv) {
			v.missing(p, path, f)
			continue
		}
		switch t := f.Type; {
		case t == listType:
			for i := range fv.Len() {
				v.scalar(fv.Index(i), fmt.Sprintf("%s[%d]", p, i), f)
			}
		case isScalar(t):
			v.scalar(fv, p, f)
		case t.Kind() == reflect.Slice:
			for i := range fv.Len() {
				v.section(fv.Index(i), fmt.Sprintf("%s[%d]", p, i))
			}
		case t.Kind() == reflect.Pointer:
			if !fv.IsNil() {
				v.section(fv.Elem(), p)
			}
		default:
			v.section(fv, p)
		}
	}
}

// missing notes that the required f of the section at parent is not there,
// unless that follows from a fault already noted.
func (v *validator) missing(path, parent string, f field) {
	switch {
	case v.partial[parent]:
	case v.given(path):
		v.fault(path, "is empty; it must be given: %s", short(f))
	default:
		v.fault(path, "is missing; it must be given: %s", short(f))
	}
}

func isEmpty(v reflect.Value) bool {
	return v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
}

// short is the first sentence of the field's documentation.
func short(f field) string {
	sentence, _, _ := strings.Cut(f.tag("doc"), ". ")
	return strings.TrimSuffix(sentence, ".")
}

func (v *validator) scalar(s reflect.Value, path string, f field) {
	if v.bad[path] {
		return
	}
	text := ""
	if s.Kind() == reflect.String {
		text = s.String()
	}
	if allowed := f.tag("enum"); allowed != "" && (text != "" || v.given(path)) && !contains(allowed, text) {
		v.fault(path, "%s is none of %s", quote(text), strings.ReplaceAll(allowed, "|", ", "))
	}
	if low := f.tag("min"); low != "" && compare(s, low) < 0 {
		v.fault(path, "%v is too small; at least %s", s, low)
	}
	if high := f.tag("max"); high != "" && compare(s, high) > 0 {
		v.fault(path, "%v is too large; at most %s", s, high)
	}
	if check := f.tag("check"); check != "" && (text != "" || f.Type == listType) {
		final, err := checks[check](v.placeOf(path), text)
		if err != nil {
			v.fault(path, "%v", err)
			return
		}
		s.SetString(final)
	}
}

func contains(list, item string) bool {
	return strings.Contains("|"+list+"|", "|"+item+"|")
}

// session checks the times of a session against each other. A default gives
// way to what was written; two written values that disagree are a fault.
func (v *validator) session() {
	s := &v.c.Session
	if !v.given("session.absolute_timeout") {
		s.AbsoluteTimeout = max(s.AbsoluteTimeout, s.IdleTimeout)
	}
	if !v.given("session.idle_timeout") {
		s.IdleTimeout = min(s.IdleTimeout, s.AbsoluteTimeout)
	}
	if s.IdleTimeout > s.AbsoluteTimeout {
		v.fault("session.idle_timeout", "%v is longer than absolute_timeout, %v; it must be as long or shorter", s.IdleTimeout, s.AbsoluteTimeout)
	}
	if !v.given("session.touch_every") {
		s.TouchEvery = min(s.TouchEvery, s.IdleTimeout/10)
	}
	if s.TouchEvery >= s.IdleTimeout && !v.bad["session.idle_timeout"] {
		v.fault("session.touch_every", "%v is not shorter than idle_timeout, %v: sessions in use would end; it must be shorter", s.TouchEvery, s.IdleTimeout)
	}
	if !v.given("session.max_unverified") {
		s.MaxUnverified = max(s.MaxUnverified, s.VerifyEvery)
	}
	if !v.given("session.verify_every") {
		s.VerifyEvery = min(s.VerifyEvery, s.MaxUnverified)
	}
	if s.VerifyEvery > s.MaxUnverified {
		v.fault("session.max_unverified", "%v is shorter than verify_every, %v; it must be as long or longer", s.MaxUnverified, s.VerifyEvery)
	}
}

// authorize sees to it that there is one rule, and none that page scripts can
// change for themselves.
func (v *validator) authorize() {
	const path = "documents.authorize"
	a := v.c.Documents.Authorize
	switch {
	case a.Attribute != "" && a.URL != "":
		v.fault(path+".url", "attribute is given too; a document's rule is one of attribute and url")
	case a.WriteAttribute != "" && a.Attribute == "" && !v.bad[path+".attribute"]:
		v.fault(path+".write_attribute", "needs attribute, which says who may read")
	}
	writable, err := sessionstore.ParsePatterns(v.c.Session.ClientWritable)
	if err != nil {
		return // noted already
	}
	for key, name := range map[string]string{path + ".attribute": a.Attribute, path + ".write_attribute": a.WriteAttribute} {
		if name != "" && !v.bad[key] && writable.Match(name) {
			v.fault(key, "%s may be written by page scripts (session.client_writable): they would let themselves in; name one that they may not write", quote(name))
		}
	}
}

func (v *validator) drain() {
	d := &v.c.Drain
	if !v.given("drain.spread") {
		d.Spread = min(d.Spread, d.Timeout)
	}
	if d.Spread > d.Timeout {
		v.fault("drain.spread", "%v is longer than timeout, %v; it must be as long or shorter", d.Spread, d.Timeout)
	}
}

// cookie settles the cookie's name, and sees to it that browsers take it.
func (v *validator) cookie() {
	s := &v.c.Session
	secure := v.c.CookieSecure()
	switch {
	case s.Cookie == "" && secure:
		s.Cookie = "__Host-tandem"
	case s.Cookie == "":
		s.Cookie = "tandem"
	}
	lower := strings.ToLower(s.Cookie) // browsers compare the prefix so
	if !secure && (strings.HasPrefix(lower, "__host-") || strings.HasPrefix(lower, "__secure-")) {
		v.fault("session.cookie", "%s needs TLS, and no listener has tls: browsers would not keep it; give a listener tls, write session.secure: always when TLS ends in front of Tandem, or another name", quote(s.Cookie))
	}
}

// listener checks listener i: one kind of service, and routes that can be reached.
func (v *validator) listener(i int) {
	l, path := &v.c.Listeners[i], fmt.Sprintf("listeners[%d]", i)
	if v.bad[path] {
		return
	}
	kinds := v.present(path, "routes", "upstream", "files", "tcp", "redirect")
	switch {
	case len(kinds) > 1:
		v.fault(join(path, kinds[1]), "a listener has one of routes, upstream, files, tcp and redirect; this one has %s", strings.Join(kinds, " and "))
	case len(kinds) == 0:
		l.Routes = standardRoutes()
	case kinds[0] == "routes" && len(l.Routes) == 0 && !v.bad[join(path, "routes")]:
		v.fault(join(path, "routes"), "is empty; write at least one route, or leave the key out for the web app")
	case kinds[0] == "redirect" && l.TLS != nil:
		v.fault(join(path, "tls"), "a listener that redirects to TLS has none; leave it out")
	case kinds[0] == "tcp" && l.TLS != nil:
		v.fault(join(path, "tls"), "a tcp listener passes bytes as they come, and has no tls; leave it out")
	}
	if l.TCP != nil && !v.bad[join(path, "tcp")] && !v.partial[join(path, "tcp")] && len(v.present(join(path, "tcp"), "target", "targets")) != 1 {
		v.fault(join(path, "tcp"), "has one of target and targets")
	}
	for j := range l.Routes {
		v.route(l.Routes, j, path)
	}
	if l.TLS != nil {
		v.certificate(l.TLS, join(path, "tls"))
	}
}

// present returns which of the keys in the section at path were written.
func (v *validator) present(path string, keys ...string) []string {
	var list []string
	for _, key := range keys {
		if v.given(join(path, key)) {
			list = append(list, key)
		}
	}
	return list
}

func (v *validator) route(routes []Route, j int, listener string) {
	r, path := routes[j], fmt.Sprintf("%s.routes[%d]", listener, j)
	if v.bad[path] {
		return
	}
	switch kinds := v.present(path, "use", "files", "upstream"); {
	case len(kinds) > 1:
		v.fault(join(path, kinds[1]), "a route has one of use, files and upstream; this one has %s", strings.Join(kinds, " and "))
	case len(kinds) == 0 && v.given(path) && !v.partial[path]:
		v.fault(path, "says not what answers; write one of use (documents, pairs, webapp), files and upstream")
	}
	for k, earlier := range routes[:j] {
		if earlier.Host == r.Host && earlier.Path == r.Path && len(earlier.Methods) == 0 && !v.bad[join(path, "path")] {
			v.fault(path, "is never reached: routes[%d] has the same host and path, and the first match wins", k)
			return
		}
	}
}

func (v *validator) certificate(t *TLS, path string) {
	for _, p := range []string{path, join(path, "cert"), join(path, "key")} {
		if v.bad[p] {
			return
		}
	}
	// An expired certificate is no fault: a replica must be able to start while
	// its successor is on the way.
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		v.fault(path, "%v; a certificate and its key in PEM form are wanted", err)
	}
}

// addresses finds two listeners on one address.
func (v *validator) addresses() {
	type taken struct{ host, path string }
	byPort := map[int][]taken{}
	claim := func(address, path string) {
		host, port, err := splitAddress(address)
		if err != nil || port == 0 || v.bad[path] {
			return
		}
		for _, other := range byPort[port] {
			if strings.EqualFold(host, other.host) || isWildcard(host) || isWildcard(other.host) {
				v.fault(path, "%s is taken by %s; each listener needs an address of its own", quote(address), other.path)
				return
			}
		}
		byPort[port] = append(byPort[port], taken{host, path})
	}
	for i := range v.c.Listeners {
		claim(v.c.Listeners[i].Address, fmt.Sprintf("listeners[%d].address", i))
	}
	claim(v.c.Admin.Address, "admin.address")
}

func isWildcard(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
