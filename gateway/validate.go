package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	Path    string // where: "listeners[0].routes[2].upstream.targets[0]"
	Problem string // what is wrong and what is allowed
}

func (f Fault) Error() string { return f.Path + ": " + f.Problem }

// Validate returns every fault of the listeners, none when they can be
// served. uses are the names that a route may `use`. It looks at the file
// system (roots, certificates), not at the network.
func Validate(listeners []Listener, uses []string) []Fault {
	v := validator{uses: uses}
	if len(listeners) == 0 {
		v.fault("listeners", "at least one is needed")
	}
	seen := map[string]bool{}
	for i, l := range listeners {
		at := fmt.Sprintf("listeners[%d]", i)
		v.listener(at, l)
		if seen[l.Address] && !strings.HasSuffix(l.Address, ":0") {
			v.fault(at+".address", "%q is taken by an earlier listener", l.Address)
		}
		seen[l.Address] = true
	}
	return v.faults
}

func (c Config) validate() error {
	uses := make([]string, 0, len(c.Handlers))
	for name := range c.Handlers {
		uses = append(uses, name)
	}
	slices.Sort(uses)
	var errs []error
	for _, f := range Validate(c.Listeners, uses) {
		errs = append(errs, f)
	}
	if c.Store != nil && c.Cookie == "" {
		errs = append(errs, errors.New("cookie: the session cookie's name is needed to keep it from upstreams"))
	}
	if c.Signer == nil && anyUpstream(c.Listeners, func(u *Upstream) bool { return u.Assertion }) {
		errs = append(errs, errors.New("assertion: there is no signer"))
	}
	if c.Store == nil && anyUpstream(c.Listeners, func(u *Upstream) bool { return u.Login == LoginRequired || u.SessionWrite }) {
		errs = append(errs, errors.New("login: required or session_write, but there is no session store"))
	}
	if c.Admin.Address != "" {
		v := validator{}
		v.address("admin.address", c.Admin.Address)
		for _, f := range v.faults {
			errs = append(errs, f)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("gateway: %w", errors.Join(errs...))
	}
	return nil
}

func anyUpstream(listeners []Listener, is func(*Upstream) bool) bool {
	for _, l := range listeners {
		for _, r := range l.effectiveRoutes() {
			if r.Upstream != nil && is(r.Upstream) {
				return true
			}
		}
	}
	return false
}

// effectiveRoutes spells a listener out that is all upstream or all files.
func (l Listener) effectiveRoutes() []Route {
	if l.Upstream != nil || l.Files != nil {
		return []Route{{Path: "/", Upstream: l.Upstream, Files: l.Files}}
	}
	return l.Routes
}

// validator collects faults.
type validator struct {
	uses   []string
	faults []Fault
}

func (v *validator) fault(path, format string, args ...any) {
	v.faults = append(v.faults, Fault{Path: path, Problem: fmt.Sprintf(format, args...)})
}

func (v *validator) listener(at string, l Listener) {
	v.address(at+".address", l.Address)
	if l.TLS != nil {
		if _, err := tls.LoadX509KeyPair(l.TLS.Cert, l.TLS.Key); err != nil {
			v.fault(at+".tls", "%v", err)
		}
	}
	if n := count(len(l.Routes) > 0, l.Upstream != nil, l.Files != nil, l.TCP != nil, l.Redirect != ""); n != 1 {
		v.fault(at, "has %d of routes, upstream, files, tcp and redirect; exactly one is needed", n)
	}
	if _, ok := redirectPort(l.Redirect); l.Redirect != "" && !ok {
		v.fault(at+".redirect", `%q is neither "https" nor "https:" and a port`, l.Redirect)
	}
	if l.Redirect != "" && l.TLS != nil {
		v.fault(at+".tls", "a listener that redirects to TLS has none")
	}
	for i, r := range l.Routes {
		v.route(fmt.Sprintf("%s.routes[%d]", at, i), r)
	}
	v.limits(at+".limits", l.Limits)
	v.upstream(at+".upstream", l.Upstream)
	v.files(at+".files", l.Files)
	if l.TCP != nil {
		v.tcp(at+".tcp", *l.TCP)
	}
}

func (v *validator) tcp(at string, t TCP) {
	if (t.Target == "") == (len(t.Targets) == 0) {
		v.fault(at, "has %d of target and targets; exactly one is needed", count(t.Target != "", len(t.Targets) > 0))
	}
	if t.Target != "" {
		v.address(at+".target", t.Target)
	}
	for i, target := range t.Targets {
		v.address(fmt.Sprintf("%s.targets[%d]", at, i), target)
	}
	v.notNegative(at+".idle", t.Idle)
	if t.Health != nil {
		v.notNegative(at+".health.interval", t.Health.Interval)
		v.notNegative(at+".health.timeout", t.Health.Timeout)
	}
}

func (v *validator) route(at string, r Route) {
	if r.Path != "" && !strings.HasPrefix(r.Path, "/") {
		v.fault(at+".path", "%q does not start with /", r.Path)
	} else if clean, ok := cleanPath(r.Path); r.Path != "" && (!ok || clean != r.Path) {
		v.fault(at+".path", `%q has an empty, "." or ".." segment`, r.Path)
	}
	if strings.Contains(strings.TrimPrefix(r.Host, "*."), "*") || strings.ContainsAny(r.Host, ":/ ") {
		v.fault(at+".host", `%q: a host is a name without a port, "*." may stand for its first label`, r.Host)
	}
	if n := count(r.Use != "", r.Upstream != nil, r.Files != nil); n != 1 {
		v.fault(at, "has %d of use, upstream and files; exactly one is needed", n)
	}
	for i, m := range r.Methods {
		if m == "" || m != strings.ToUpper(m) {
			v.fault(fmt.Sprintf("%s.methods[%d]", at, i), "%q is no method in upper case, such as GET", m)
		}
	}
	if r.Use != "" && !slices.Contains(v.uses, r.Use) {
		v.fault(at+".use", "%q is unknown; allowed: %s", r.Use, strings.Join(v.uses, ", "))
	}
	if r.Rate != nil {
		v.rate(at+".rate", *r.Rate)
	}
	v.upstream(at+".upstream", r.Upstream)
	v.files(at+".files", r.Files)
}

func (v *validator) limits(at string, l Limits) {
	if l.Header < 0 || l.Header > 0 && l.Header < 1<<10 {
		v.fault(at+".header", "%d is too small; at least 1024 bytes", l.Header)
	}
	v.notNegative(at+".header_timeout", l.HeaderTimeout)
	if l.Body < 0 {
		v.fault(at+".body", "%d is negative", l.Body)
	}
	if l.ConnectionsPerAddress < 0 {
		v.fault(at+".connections_per_address", "%d is negative", l.ConnectionsPerAddress)
	}
}

func (v *validator) rate(at string, r Rate) {
	if r.Requests < 1 {
		v.fault(at+".requests", "%d is too small; at least 1", r.Requests)
	}
	v.notNegative(at+".per", r.Per)
	if r.Burst < 0 {
		v.fault(at+".burst", "%d is negative", r.Burst)
	}
}

func (v *validator) files(at string, f *Files) {
	if f == nil {
		return
	}
	if info, err := os.Stat(f.Root); err != nil {
		v.fault(at+".root", "%v", err)
	} else if !info.IsDir() {
		v.fault(at+".root", "%q is not a directory", f.Root)
	}
	for i, rule := range f.Cache {
		v.cacheRule(fmt.Sprintf("%s.cache[%d]", at, i), rule)
	}
}

func (v *validator) cacheRule(at string, r CacheRule) {
	dir := strings.HasSuffix(r.Match, "/")
	if _, err := path.Match(r.Match, ""); !dir && (r.Match == "" || err != nil || strings.Contains(r.Match, "/")) {
		v.fault(at+".match", `%q is neither a directory such as "assets/" nor a pattern for file names such as "*.html"`, r.Match)
	}
	if r.Control == "" || strings.ContainsFunc(r.Control, func(c rune) bool { return c < ' ' || c > '~' }) {
		v.fault(at+".control", "%q is no value of a Cache-Control header, such as no-cache", r.Control)
	}
}

func (v *validator) upstream(at string, u *Upstream) {
	if u == nil {
		return
	}
	if len(u.Targets) == 0 {
		v.fault(at+".targets", "at least one is needed")
	}
	for i, t := range u.Targets {
		if _, err := parseTarget(t); err != nil {
			v.fault(fmt.Sprintf("%s.targets[%d]", at, i), "%v", err)
		}
	}
	v.oneOf(at+".login", u.Login, LoginNone, LoginRequired)
	v.oneOf(at+".balance", u.Balance, BalanceLeastRequests, BalanceRoundRobin, BalanceSessionHash)
	v.notNegative(at+".timeouts.connect", u.Timeouts.Connect)
	v.notNegative(at+".timeouts.send", u.Timeouts.Send)
	v.notNegative(at+".timeouts.response_header", u.Timeouts.ResponseHeader)
	v.notNegative(at+".timeouts.idle", u.Timeouts.Idle)
	if u.Retries < 0 {
		v.fault(at+".retries", "%d is negative", u.Retries)
	}
	if c := u.Concurrency; c != nil {
		if c.Requests < 1 {
			v.fault(at+".concurrency.requests", "%d is too small; at least 1", c.Requests)
		}
		if c.Waiting < 0 {
			v.fault(at+".concurrency.waiting", "%d is negative", c.Waiting)
		}
		v.notNegative(at+".concurrency.timeout", c.Timeout)
	}
	if h := u.Health; h != nil {
		if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
			v.fault(at+".health.path", "%q does not start with /", h.Path)
		}
		v.notNegative(at+".health.interval", h.Interval)
		v.notNegative(at+".health.timeout", h.Timeout)
	}
}

func (v *validator) oneOf(at, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		v.fault(at, "%q is unknown; allowed: %s", value, strings.Join(allowed, ", "))
	}
}

func (v *validator) notNegative(at string, d time.Duration) {
	if d < 0 {
		v.fault(at, "%v is negative", d)
	}
}

func (v *validator) address(at, address string) {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		v.fault(at, "%q is not host:port", address)
	} else if _, err := net.LookupPort("tcp", port); err != nil {
		v.fault(at, "%q has no valid port", address)
	}
}

// parseTarget reads the URL of an upstream's target.
func parseTarget(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is not an http:// or https:// URL with a host", s)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("%q: a target is scheme, host and port only", s)
	}
	return u, nil
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}
