package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

type kind string

const (
	kindSingle   kind = "single"
	kindSentinel kind = "sentinel"
	kindCluster  kind = "cluster"
	kindEmbedded kind = "embedded"
)

// target is a parsed URL.
type target struct {
	kind   kind
	tls    bool
	addrs  []string // host:port, at least one but for embedded
	master string   // sentinel only
	db     int

	username, password                 string
	sentinelUsername, sentinelPassword string

	caFile             string
	insecureSkipVerify bool
	poolSize           int // 0: go-redis' default
}

const allowedForms = `allowed are redis://host:6379/0, redis+sentinel://host:26379,host:26379/mymaster/0, ` +
	`redis+cluster://host:7000,host:7001 (each with rediss for TLS), and "embedded:"`

const encodeHint = "special characters in user name, password and options must be percent-encoded"

var schemes = map[string]target{
	"redis":           {kind: kindSingle},
	"rediss":          {kind: kindSingle, tls: true},
	"redis+sentinel":  {kind: kindSentinel},
	"rediss+sentinel": {kind: kindSentinel, tls: true},
	"redis+cluster":   {kind: kindCluster},
	"rediss+cluster":  {kind: kindCluster, tls: true},
}

// CheckURL returns what Open would have against a URL, and the CA file that it
// names. It does not ask Redis. The error does not show the password.
func CheckURL(url string) error {
	t, err := parseURL(url)
	if err == nil {
		_, err = t.tlsConfig(nil)
	}
	return err
}

// parseURL reads a Redis URL. Its errors name the URL without the password.
// net/url alone cannot do it: it refuses a list of hosts.
func parseURL(raw string) (target, error) {
	if raw == "embedded:" {
		return target{kind: kindEmbedded}, nil
	}
	t, err := parseParts(raw)
	if err != nil {
		return target{}, fmt.Errorf("redis URL %q: %w", redact(raw), err)
	}
	return t, nil
}

func parseParts(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("is empty; " + allowedForms)
	}
	scheme, rest, _ := strings.Cut(raw, "://")
	t, ok := schemes[strings.ToLower(scheme)]
	if !ok {
		return target{}, errors.New("unknown form; " + allowedForms)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	path, query, _ := strings.Cut(tail, "?")
	if strings.ContainsAny(tail, "#@") {
		return target{}, errors.New("has a # or a late @; " + encodeHint)
	}
	hosts := authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		if err := t.setUser(authority[:at]); err != nil {
			return target{}, err
		}
		hosts = authority[at+1:]
	}
	for _, set := range []func() error{
		func() error { return t.setHosts(hosts) },
		func() error { return t.setPath(path) },
		func() error { return t.setQuery(query) },
	} {
		if err := set(); err != nil {
			return target{}, err
		}
	}
	return t, nil
}

func (t *target) setUser(userinfo string) error {
	name, password, _ := strings.Cut(userinfo, ":")
	if password == "" {
		return errors.New("has a user but no password; a password alone is written as redis://:password@host")
	}
	var err1, err2 error
	t.username, err1 = url.PathUnescape(name)
	t.password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("has a bad %-escape before the @; " + encodeHint)
	}
	return nil
}

func (t *target) setHosts(hosts string) error {
	port := "6379"
	if t.kind == kindSentinel {
		port = "26379"
	}
	list := strings.Split(hosts, ",")
	if t.kind == kindSingle && len(list) > 1 {
		return errors.New("names several hosts; use redis+sentinel:// or redis+cluster:// for that")
	}
	for _, item := range list {
		addr, err := hostPort(item, port)
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, addr)
	}
	return nil
}

// hostPort completes host, host:port, [v6] and [v6]:port.
func hostPort(item, defaultPort string) (string, error) {
	host, port, err := net.SplitHostPort(item)
	if err != nil {
		host, port, err = net.SplitHostPort(item + ":" + defaultPort)
	}
	if err != nil {
		return "", fmt.Errorf("bad address %q: want host:port", item)
	}
	if host == "" || strings.ContainsAny(host, " \t\r\n\"'\\<>{}|^`%") {
		return "", fmt.Errorf("bad host in %q", item)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("bad port in %q: want 1 to 65535", item)
	}
	return net.JoinHostPort(host, port), nil
}

// setPath reads /db, or /master and /master/db of a Sentinel URL.
func (t *target) setPath(path string) error {
	path = strings.Trim(path, "/")
	if t.kind == kindSentinel {
		name, rest, _ := strings.Cut(path, "/")
		master, err := url.PathUnescape(name)
		if err != nil || master == "" {
			return errors.New("names no master; want redis+sentinel://host:26379/mymaster/0")
		}
		t.master, path = master, rest
	}
	if path == "" {
		return nil
	}
	db, err := strconv.ParseUint(path, 10, 15)
	if err != nil {
		return fmt.Errorf("bad database %q: want a number", path)
	}
	if t.kind == kindCluster && db != 0 {
		return errors.New("a cluster has database 0 only")
	}
	t.db = int(db)
	return nil
}

func (t *target) setQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("has a bad query after the ?")
	}
	for name, list := range values {
		value := list[len(list)-1]
		known := true
		switch name {
		case "ca_file":
			t.caFile, known = value, t.tls
		case "insecure_skip_verify":
			known = t.tls
			if t.insecureSkipVerify, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("bad insecure_skip_verify %q: want true or false", value)
			}
		case "pool_size":
			if t.poolSize, err = strconv.Atoi(value); err != nil || t.poolSize < 1 || t.poolSize > 100_000 {
				return fmt.Errorf("bad pool_size %q: want 1 to 100000", value)
			}
		case "sentinel_username":
			t.sentinelUsername, known = value, t.kind == kindSentinel
		case "sentinel_password":
			t.sentinelPassword, known = value, t.kind == kindSentinel
		default:
			known = false
		}
		if !known {
			return fmt.Errorf("option %q is not allowed here; allowed are pool_size, "+
				"with rediss ca_file and insecure_skip_verify, with Sentinel sentinel_username and sentinel_password", name)
		}
	}
	return nil
}

// tlsConfig returns nil for plain TCP.
func (t *target) tlsConfig(base *tls.Config) (*tls.Config, error) {
	if !t.tls {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		cfg = base.Clone()
	}
	if t.insecureSkipVerify {
		cfg.InsecureSkipVerify = true
	}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fmt.Errorf("redis URL: ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis URL: ca_file %s has no PEM certificate", t.caFile)
		}
	}
	return cfg, nil
}

// redact hides everything that can be a password, also in a URL so malformed
// that nobody knows where it ends.
func redact(raw string) string {
	start := 0
	if i := strings.Index(raw, "://"); i >= 0 {
		start = i + len("://")
	}
	if at := strings.LastIndexByte(raw, '@'); at >= start {
		raw = raw[:start] + "***" + raw[at:]
	}
	if base, query, ok := strings.Cut(raw, "?"); ok && strings.Contains(query, "password") {
		raw = base + "?***"
	}
	return raw
}
