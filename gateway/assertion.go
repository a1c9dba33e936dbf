package gateway

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// assertionHeader brings an upstream the proof of who is logged in.
	assertionHeader = "X-Tandem-Assertion"

	// jwksPath is where the public keys are, on every HTTP listener.
	jwksPath = "/.well-known/tandem/jwks.json"
	kindJWKS = "jwks"

	assertionLife  = time.Minute
	assertionReuse = 10 * time.Second // one is sent again for so long, so that upstreams have 50 s
	assertionsKept = 10_000           // more are signed anew
)

// Signer signs what the gateway says about a session to an upstream, so that
// it can be believed whatever way it came: a JWT (RFC 7519), EdDSA with
// Ed25519 (RFC 8037), good for a minute and for one route. Safe for concurrent
// use.
type Signer struct {
	issuer string // fixed
	keys   atomic.Pointer[signingKeys]

	mu    sync.Mutex // a leaf; guards the following
	since time.Time
	kept  map[assertion]string
}

// signingKeys are the keys in force.
type signingKeys struct {
	private ed25519.PrivateKey
	id      string
	jwks    []byte // the public halves of all, RFC 7517
}

// assertion is what a token says.
type assertion struct {
	audience string
	who      identity
	key      string
}

// NewSigner returns a signer that calls itself issuer. The first key signs,
// all are published: see Replace.
func NewSigner(issuer string, keys ...ed25519.PrivateKey) (*Signer, error) {
	s := &Signer{issuer: issuer}
	return s, s.Replace(keys...)
}

// Replace puts other keys in force. To change the key without a moment in
// which upstreams know none that fits, add the new one last, give them time to
// fetch it, and then move it to the front.
func (s *Signer) Replace(keys ...ed25519.PrivateKey) error {
	if len(keys) == 0 {
		return errors.New("gateway: a signer needs a key")
	}
	type jwk struct {
		Type      string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		ID        string `json:"kid"`
		Use       string `json:"use"`
		Algorithm string `json:"alg"`
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, key := range keys {
		if len(key) != ed25519.PrivateKeySize {
			return errors.New("gateway: not an Ed25519 key")
		}
		x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", x, thumbprint(x), "sig", "EdDSA"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		return err
	}
	s.keys.Store(&signingKeys{private: keys[0], id: set.Keys[0].ID, jwks: append(text, '\n')})
	return nil
}

// thumbprint is a key's ID by RFC 7638.
func thumbprint(x string) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ParseSigningKey reads an Ed25519 key in PKCS #8 PEM form, as from
// "openssl genpkey -algorithm ed25519".
func ParseSigningKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New(`no "PRIVATE KEY" in PEM form (PKCS #8)`)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("no PKCS #8 key: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of another kind (%T) than Ed25519", key)
	}
	return private, nil
}

// assert returns a token that tells audience who is logged in.
func (s *Signer) assert(audience string, who identity) (string, error) {
	keys, now := s.keys.Load(), time.Now()
	what := assertion{audience, who, keys.id}
	if token, ok := s.recent(what, now); ok {
		return token, nil
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": s.issuer, "aud": audience, "sub": who.user, "name": who.name, "sid": who.handle,
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(), "jti": randomID(),
	})
	token.Header["kid"] = keys.id
	signed, err := token.SignedString(keys.private)
	if err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) < assertionsKept {
		s.kept[what] = signed
	}
	return signed, nil
}

// assert adds the proof of who is logged in. Without one the upstream refuses
// by itself, which is what it wants it for.
func (p *proxy) assert(x *exchange, h http.Header) {
	token, err := p.g.cfg.Signer.assert(p.route.name, x.who)
	if err != nil {
		p.g.log.Error("no assertion for an upstream", "request", x.id[0], "route", p.route.name, "err", err)
		return
	}
	h[assertionHeader] = []string{token}
}

// recent returns the token that said the same a moment ago. All of them are
// forgotten at once, so that none needs a clock of its own.
func (s *Signer) recent(what assertion, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || now.Sub(s.since) >= assertionReuse {
		s.since, s.kept = now, map[assertion]string{}
	}
	token, ok := s.kept[what]
	return token, ok
}

// ServeHTTP serves the public keys.
func (s *Signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != jwksPath || r.Method != http.MethodGet && r.Method != http.MethodHead {
		exchangeFrom(r.Context()).refuse(r, reasonNoRoute, nil)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(s.keys.Load().jwks) // an error means that the client has gone
}
