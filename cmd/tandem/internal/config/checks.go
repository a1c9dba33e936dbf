package config

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/redisconn"
)

// checks holds what the tag check names: each looks at one text that was
// given at p and returns its final form, or what is wrong and what is allowed.
var checks = map[string]func(p place, text string) (string, error){
	"address":     checkAddress,
	"attribute":   checkAttribute,
	"callback":    checkCallback,
	"cookie":      checkCookie,
	"dir":         checkDir,
	"file":        checkFile,
	"header":      checkHeader,
	"host":        checkHost,
	"key_prefix":  checkKeyPrefix,
	"keys":        checkKeys,
	"match":       checkMatch,
	"network":     checkNetwork,
	"method":      checkMethod,
	"origin":      checkOrigin,
	"path":        checkPath,
	"pattern":     checkPattern,
	"redis":       checkRedis,
	"redirect":    checkRedirect,
	"signing_key": checkSigningKey,
	"target":      checkTarget,
	"token":       checkToken,
	"url":         checkURL,
	"writable":    checkWritable,
}

func checkAddress(_ place, text string) (string, error) {
	if _, _, err := splitAddress(text); err != nil {
		return "", fmt.Errorf("%s %w; write host:port such as 127.0.0.1:8080, or :8080 for all interfaces", quote(text), err)
	}
	return text, nil
}

func checkTarget(_ place, text string) (string, error) {
	host, port, err := splitAddress(text)
	if err == nil && (host == "" || port == 0) {
		err = errors.New("lacks a host or a port")
	}
	if err != nil {
		return "", fmt.Errorf("%s %w; write host:port such as 127.0.0.1:3306", quote(text), err)
	}
	return text, nil
}

func splitAddress(text string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, errors.New("is not an address")
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 || portText[0] == '+' {
		return "", 0, fmt.Errorf("has the port %s, which is no number from 0 to 65535", quote(portText))
	}
	if host != "" && !isHost(host) {
		return "", 0, fmt.Errorf("has the host %s, which is neither a name nor an IP address", quote(host))
	}
	return host, port, nil
}

var hostName = regexp.MustCompile(`^(?i:[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*(?i:[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)\.?$`)

func isHost(host string) bool {
	address, _, _ := strings.Cut(host, "%") // an IPv6 zone
	return net.ParseIP(address) != nil || len(host) <= 253 && hostName.MatchString(host)
}

func checkHost(_ place, text string) (string, error) {
	if !isHost(strings.TrimPrefix(text, "*.")) {
		return "", fmt.Errorf("%s is not a host name; write a name such as api.example.test or *.example.test, without scheme, port and path", quote(text))
	}
	return strings.TrimSuffix(strings.ToLower(text), "."), nil
}

func checkPath(_ place, text string) (string, error) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return "", fmt.Errorf("%s does not begin with /", quote(text))
	case strings.Contains(text, "//"):
		return "", fmt.Errorf("%s holds an empty segment", quote(text))
	case strings.ContainsAny(text, "?#*"):
		return "", fmt.Errorf("%s holds one of ? # *; a path prefix is plain text", quote(text))
	}
	for segment := range strings.SplitSeq(text, "/") {
		if segment == "." || segment == ".." {
			return "", fmt.Errorf("%s holds %q, which no request path does", quote(text), segment)
		}
	}
	return text, nil
}

func checkMatch(_ place, text string) (string, error) {
	if strings.HasSuffix(text, "/") {
		_, err := checkPath(place{}, "/"+strings.TrimPrefix(text, "/"))
		return text, err
	}
	if _, err := path.Match(text, ""); err != nil || strings.Contains(text, "/") {
		return "", fmt.Errorf("%s is neither a directory nor a pattern; write a directory such as assets/, with a slash at its end, or a pattern for file names such as *.html", quote(text))
	}
	return text, nil
}

func checkRedirect(_ place, text string) (string, error) {
	port, ok := strings.CutPrefix(text, "https:")
	if text != "https" && !(ok && isPort(port)) {
		return "", fmt.Errorf("%s is no redirect; write https, or https:443 with the port that clients see", quote(text))
	}
	return text, nil
}

var method = regexp.MustCompile(`^[A-Za-z-]{1,20}$`)

func checkMethod(_ place, text string) (string, error) {
	if !method.MatchString(text) {
		return "", fmt.Errorf("%s is not a method; write one such as GET or POST", quote(text))
	}
	return strings.ToUpper(text), nil
}

func checkHeader(_ place, text string) (string, error) {
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", fmt.Errorf("%s cannot stand in a header; write printable ASCII", quote(text))
	}
	return text, nil
}

func checkURL(_ place, text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return "", fmt.Errorf("%s is not a URL of a server; write http://host:port or https://host:port", quote(text))
	case u.User != nil:
		return "", errors.New("a URL with a user name or password is not supported; write http://host:port or https://host:port")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", fmt.Errorf("%s holds a path, query or fragment; write http://host:port or https://host:port", quote(text))
	}
	if port := u.Port(); !isHost(u.Hostname()) || strings.HasSuffix(u.Host, ":") || port != "" && !isPort(port) {
		return "", fmt.Errorf("%s has a bad host or port; write http://host:port or https://host:port", quote(text))
	}
	return strings.TrimSuffix(text, "/"), nil
}

func checkCallback(_ place, text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || !isHost(u.Hostname()) || u.Port() != "" && !isPort(u.Port()):
		return "", fmt.Errorf("%s is not a URL; write http://host:port/path or https://host/path", quote(text))
	case u.User != nil || u.Fragment != "":
		return "", errors.New("a URL with a user name, password or fragment is not supported; write http://host:port/path or https://host/path")
	}
	return text, nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func checkNetwork(_ place, text string) (string, error) {
	if text == "private" {
		return text, nil
	}
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return text, nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return "", fmt.Errorf("%s is not a network; write one such as 10.0.0.0/8 or fd00::/8, a single address, or private", quote(text))
	}
	if network != network.Masked() {
		return "", fmt.Errorf("%s has bits behind its prefix; write %s", quote(text), network.Masked())
	}
	return text, nil
}

func checkOrigin(_ place, text string) (string, error) {
	if text == "*" || text == "same-origin" {
		return text, nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || !isHost(u.Hostname()) ||
		u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || (u.Port() != "" && !isPort(u.Port())) {
		return "", fmt.Errorf("%s is not an origin; write same-origin, * or an origin such as https://app.example.test, without a path", quote(text))
	}
	return strings.ToLower(text), nil
}

// checkRedis does not ask Redis. The text may hold a password and is not
// repeated in the fault as it is.
func checkRedis(_ place, text string) (string, error) {
	const allowed = "redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://, or \"embedded:\""
	if strings.TrimSuffix(text, ":") == "embedded" || text == "embedded://" {
		return embedded, nil
	}
	scheme, rest, ok := strings.Cut(text, "://")
	kind := strings.TrimPrefix(strings.TrimPrefix(scheme, "rediss"), "redis")
	switch {
	case !ok || !strings.HasPrefix(scheme, "redis") || (kind != "" && kind != "+sentinel" && kind != "+cluster"):
		return "", errors.New("is not a Redis URL; write one that begins with " + allowed)
	case rest == "" || strings.HasPrefix(rest, "/"):
		return "", errors.New("names no Redis host; write redis://host:6379/0")
	}
	return text, redisconn.CheckURL(text)
}

// A cookie's name is a token of RFC 9110.
var cookieName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")

func checkCookie(_ place, text string) (string, error) {
	if !cookieName.MatchString(text) {
		return "", fmt.Errorf("%s is not a cookie name; write letters, digits, - and _", quote(text))
	}
	return text, nil
}

func checkKeyPrefix(_ place, text string) (string, error) {
	if strings.ContainsAny(text, "{}*?[]\\ \t\r\n") || strings.HasPrefix(text, "tandem:") {
		return "", fmt.Errorf(`%s cannot be a key prefix: it must not begin with tandem: or hold spaces and any of { } * ? [ ] \`, quote(text))
	}
	return text, nil
}

func checkPattern(_ place, text string) (string, error) {
	if _, err := sessionstore.ParsePatterns([]string{text}); err != nil {
		return "", fmt.Errorf("%s is not a pattern: %w; write an attribute name such as user.name, or chat.*", quote(text), err)
	}
	return text, nil
}

// checkAttribute wants the name of one attribute.
func checkAttribute(_ place, text string) (string, error) {
	_, err := sessionstore.ParsePatterns([]string{text})
	if err != nil || strings.Contains(text, "*") {
		return "", fmt.Errorf("%s is not an attribute's name; write one such as documents, neither a pattern nor one of tandem.*", quote(text))
	}
	return text, nil
}

func checkWritable(p place, text string) (string, error) {
	if _, err := checkPattern(p, text); err != nil {
		return "", err
	}
	patterns, err := sessionstore.ParsePatterns([]string{text})
	if err != nil {
		return "", err
	}
	for _, identity := range []string{"user.id", "user.name"} {
		if patterns.Match(identity) {
			return "", fmt.Errorf("%s would let page scripts write %s, which says who is logged in; write narrower patterns such as chat.*", quote(text), identity)
		}
	}
	return text, nil
}

// resolve makes a path that was given at p ready to be opened.
func (p place) resolve(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

func checkFile(p place, text string) (string, error) {
	name := p.resolve(text)
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("the file %s cannot be read: %w; it must be there, paths are relative to the configuration file", quote(text), reason(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return "", fmt.Errorf("%s is a directory; a file is wanted", quote(text))
	}
	return name, nil
}

// readFile is checkFile for a file whose content is looked at.
func readFile(p place, text string) (name string, content []byte, err error) {
	if name, err = checkFile(p, text); err != nil {
		return "", nil, err
	}
	if content, err = os.ReadFile(name); err != nil {
		return "", nil, fmt.Errorf("the file %s cannot be read: %w", quote(text), reason(err))
	}
	return name, content, nil
}

func checkToken(p place, text string) (string, error) {
	name, token, err := readFile(p, text)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(string(token)) == "" {
		return "", fmt.Errorf("the file %s is empty; it must hold the token", quote(text))
	}
	return name, nil
}

func checkKeys(p place, text string) (string, error) {
	name, content, err := readFile(p, text)
	if err != nil {
		return "", err
	}
	if _, err := sessionstore.ParseKeys(content); err != nil {
		return "", fmt.Errorf("the file %s: %w; write 32 random bytes in base64 a line, as from openssl rand -base64 32", quote(text), err)
	}
	return name, nil
}

func checkSigningKey(p place, text string) (string, error) {
	name, content, err := readFile(p, text)
	if err != nil {
		return "", err
	}
	const wanted = "an Ed25519 key in PKCS #8 PEM form is wanted, as from openssl genpkey -algorithm ed25519"
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" {
		return "", fmt.Errorf("the file %s holds no private key in PEM form; %s", quote(text), wanted)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("the file %s: %w; %s", quote(text), err, wanted)
	}
	if _, ok := key.(ed25519.PrivateKey); !ok {
		return "", fmt.Errorf("the file %s holds a key of another kind; %s", quote(text), wanted)
	}
	return name, nil
}

func checkDir(p place, text string) (string, error) {
	name := p.resolve(text)
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("the directory %s cannot be read: %w; it must be there, paths are relative to the configuration file", quote(text), reason(err))
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is a file; a directory is wanted", quote(text))
	}
	return name, nil
}

// reason strips the path, which the message names already.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
