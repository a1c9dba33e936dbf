package gateway

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func signingKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// published fetches the keys of a gateway, as an upstream does.
func published(t testing.TB, g *Gateway) map[string]ed25519.PublicKey {
	t.Helper()
	a := get(t, g.url()+"/.well-known/tandem/jwks.json")
	var set struct {
		Keys []struct{ Kty, Crv, X, Kid, Use, Alg string }
	}
	if err := json.Unmarshal([]byte(a.body), &set); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || k.Kty != "OKP" || k.Crv != "Ed25519" || k.Use != "sig" || k.Alg != "EdDSA" {
			t.Errorf("%+v: %v", k, err)
		}
		keys[k.Kid] = x
	}
	return keys
}

// The whole way: an upstream that believes nothing but a valid assertion.
func TestAssertion(t *testing.T) {
	s := newLoginSite(t, redistest.Mini(t))
	first, second := signingKey(t), signingKey(t)
	signer, err := NewSigner("https://tandem.test", first)
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.MapClaims
	var g *Gateway
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		claims = jwt.MapClaims{}
		if r.Header.Get("X-Tandem-Assertion") == "" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		keys := published(t, g)
		_, err := jwt.ParseWithClaims(r.Header.Get("X-Tandem-Assertion"), claims, func(token *jwt.Token) (any, error) {
			return keys[token.Header["kid"].(string)], nil
		}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience("site.test/private/"), jwt.WithIssuer("https://tandem.test"), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
		if err != nil {
			t.Error(err)
		}
	})
	cfg := routes(
		Route{Host: "site.test", Path: "/private/", Upstream: &Upstream{Targets: []string{up.URL}, Assertion: true}},
		Route{Path: "/", Upstream: &Upstream{Targets: []string{up.URL}}},
	)
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "assertion: there is no signer") {
		t.Errorf("without a signer: %v", err)
	}
	cfg.Store, cfg.Cookie, cfg.Signer = s.g.cfg.Store, "tandem", signer
	g = start(t, cfg)

	ada := s.login(t, "7", "Zoë")
	ask := func() answer {
		return get(t, g.url()+"/private/x", "Host", "site.test", "Cookie", "tandem="+ada.ID(), "X-Tandem-Assertion", "forged", "X_Tandem_Assertion", "forged")
	}
	if a := ask(); a.status != 200 || claims["sub"] != "7" || claims["name"] != "Zoë" || claims["sid"] != ada.Handle() || claims["jti"] == "" ||
		claims["exp"].(float64)-claims["iat"].(float64) != 60 {
		t.Errorf("%d %v", a.status, claims)
	}
	id := claims["jti"]
	if ask(); claims["jti"] != id {
		t.Error("signed again for the same")
	}

	if err := signer.Replace(first, second); err != nil {
		t.Fatal(err)
	}
	if keys := published(t, g); len(keys) != 2 {
		t.Errorf("%d keys", len(keys))
	}
	if err := signer.Replace(second, first); err != nil {
		t.Fatal(err)
	}
	if ask(); claims["jti"] == id {
		t.Error("the new key does not sign")
	}

	for path, host := range map[string]string{"/private/x": "site.test", "/x": "other.test"} { // nobody; a route that did not ask
		cookie := map[bool]string{true: "", false: "tandem=" + ada.ID()}[host == "site.test"]
		if a := get(t, g.url()+path, "Host", host, "Cookie", cookie, "X-Tandem-Assertion", "forged"); a.status != http.StatusTeapot {
			t.Errorf("%s%s: %d", host, path, a.status)
		}
	}
	if a := get(t, g.url()+"/.well-known/tandem/jwks.json/x"); a.status != http.StatusNotFound {
		t.Errorf("below the keys: %d", a.status)
	}
}

func TestAssertionsAreReusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewSigner("tandem", signingKey(t))
		if err != nil {
			t.Fatal(err)
		}
		sign := func(audience, user string) string {
			token, err := s.assert(audience, identity{user: user})
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		first := sign("a", "7")
		time.Sleep(assertionReuse - time.Second)
		if sign("a", "7") != first || sign("b", "7") == first || sign("a", "8") == first {
			t.Error("the wrong one is sent again, or none")
		}
		time.Sleep(time.Second)
		if sign("a", "7") == first {
			t.Error("it is sent for too long")
		}
	})
}

func TestSigningKeys(t *testing.T) {
	for _, bad := range []string{"", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if key, err := ParseSigningKey([]byte(bad)); err == nil {
			t.Errorf("%q is %v", bad, key)
		}
	}
	if _, err := NewSigner("x"); err == nil {
		t.Error("a signer without a key")
	}
	if _, err := NewSigner("x", ed25519.PrivateKey("short")); err == nil {
		t.Error("a signer with half a key")
	}
}

func BenchmarkAssertion(b *testing.B) {
	s, err := NewSigner("tandem", signingKey(b))
	if err != nil {
		b.Fatal(err)
	}
	for name, who := range map[string]func(i int) identity{
		"same": func(int) identity { return identity{user: "7"} },
		"new":  func(i int) identity { return identity{user: "7", handle: string(rune(i))} },
	} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, err := s.assert("a", who(i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
