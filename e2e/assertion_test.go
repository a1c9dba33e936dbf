package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-6230208e/tandem/internal/redistest"
)

func newSigningKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// An upstream gets a proof that it can check with the published keys, and the keys are changed while it runs.
func TestSignedAssertions(t *testing.T) {
	redis := redistest.Start(t)
	up := upstream(t)
	dir := t.TempDir()
	now, next := dir+"/now.pem", dir+"/next.pem"
	writeFile(t, now, newSigningKey(t))
	writeFile(t, next, newSigningKey(t))
	r := startReplica(t, settings{
		redis:  redis.URL(),
		routes: fmt.Sprintf("      - {path: /app/, upstream: {targets: [%q], assertion: true}}\n", up.URL) + defaultRoutes,
		more:   fmt.Sprintf("assertion: {issuer: tandem.test, key_files: [%q, %q]}\n", now, next),
	})
	ada := newPerson(t)
	if a := ada.get(r.url + "/app/"); strings.Contains(a.body, "X-Tandem-Assertion") {
		t.Errorf("an assertion of nobody: %s", a.body)
	}
	ada.register(r.url, "ada")
	s := ada.session(r.url)

	keys := func() map[string]ed25519.PublicKey {
		var set struct{ Keys []struct{ X, Kid string } }
		if err := json.Unmarshal([]byte(ada.get(r.url+"/.well-known/tandem/jwks.json").body), &set); err != nil {
			t.Fatal(err)
		}
		m := map[string]ed25519.PublicKey{}
		for _, k := range set.Keys {
			x, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil {
				t.Fatal(err)
			}
			m[k.Kid] = x
		}
		return m
	}
	checked := func(keys map[string]ed25519.PublicKey) string {
		t.Helper()
		found := regexp.MustCompile(`X-Tandem-Assertion: (\S+)`).FindStringSubmatch(ada.get(r.url + "/app/").body)
		if found == nil {
			t.Fatal("no assertion")
		}
		token, err := jwt.Parse(found[1], func(token *jwt.Token) (any, error) { return keys[token.Header["kid"].(string)], nil },
			jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithAudience("/app/"), jwt.WithIssuer("tandem.test"), jwt.WithExpirationRequired())
		if err != nil {
			t.Fatal(err)
		}
		if claims := token.Claims.(jwt.MapClaims); claims["sub"] != s.User.ID || claims["name"] != "ada" || claims["sid"] != s.Handle {
			t.Errorf("claims %v", claims)
		}
		return token.Header["kid"].(string)
	}
	before := keys()
	if len(before) != 2 {
		t.Fatalf("%d keys are published", len(before))
	}
	first := checked(before)

	// The files change their places; upstreams know both already.
	newest := newSigningKey(t)
	writeFile(t, now, newest)
	r.signal(syscall.SIGHUP)
	eventually(t, 20*time.Second, func() error {
		if _, there := keys()[first]; there {
			return fmt.Errorf("the old key is still published")
		}
		return nil
	})
	if checked(keys()) == first {
		t.Error("the old key still signs")
	}
	// A key that cannot be read changes nothing.
	writeFile(t, now, "nonsense")
	r.signal(syscall.SIGHUP)
	eventually(t, 20*time.Second, func() error {
		if !strings.Contains(r.out.String(), "reload refused") {
			return fmt.Errorf("the reload was not refused")
		}
		return nil
	})
	checked(keys())
	if a := ada.get(r.url + "/.well-known/tandem/other"); a.status != http.StatusNotFound {
		t.Errorf("another name there: %d", a.status)
	}
}
