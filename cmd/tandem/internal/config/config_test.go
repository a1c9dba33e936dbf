package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// folder makes a directory with the files that the contract's sample names.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write(t, dir, "admin.token", []byte("secret\n"))
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func environment(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

// load loads text as the file tandem.yaml in dir; the faults name it so.
func load(t testing.TB, dir, text string) (*Config, []string) {
	t.Helper()
	c, err := Load(Source{File: write(t, dir, "tandem.yaml", []byte(text))})
	if err == nil {
		return c, nil
	}
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load: %v", err)
	}
	lines := strings.Split(faults.Error(), "\n")
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], dir+string(filepath.Separator), "")
	}
	return c, lines
}

// Editors on Windows begin a file with a byte order mark.
func TestByteOrderMark(t *testing.T) {
	c, faults := load(t, t.TempDir(), "\ufeffredis: embedded:\r\nlog: {level: warn}\r\n")
	if faults != nil || !c.Embedded() || c.Log.Level != "warn" {
		t.Errorf("%q, faults %q", c.Redis, faults)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(Source{})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Embedded() || c.Admin.Address != "127.0.0.1:9090" || c.Webapp.Registration != "first-user" ||
		c.Session.Cookie != "tandem" || c.CookieSecure() || c.Documents.MaxMessage != 64<<10 {
		t.Errorf("defaults are %+v", c)
	}
	want := []Listener{{Address: "127.0.0.1:8080", Routes: []Route{
		{Path: "/ws/documents/", Use: "documents"}, {Path: "/left/", Use: "pairs"},
		{Path: "/right/", Use: "pairs"}, {Path: "/", Use: "webapp"},
	}, Limits: ListenerLimits{Header: 64 << 10, HeaderTimeout: 10 * time.Second, BodyTimeout: time.Minute}}}
	if !reflect.DeepEqual(c.Listeners, want) {
		t.Errorf("listeners are %+v, want %+v", c.Listeners, want)
	}
}

func TestEmptyFileIsDefaults(t *testing.T) {
	want, err := Load(Source{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "# nothing\n", "session:\nlog: # level: debug\n", "---\n"} {
		c, faults := load(t, t.TempDir(), text)
		c.source = want.source
		c.places, want.places = nil, nil
		c.source.Getenv, want.source.Getenv = nil, nil
		if faults != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%q: %+v, faults %q", text, c, faults)
		}
	}
}

func TestContractSample(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	c, faults := load(t, dir, string(text))
	if faults != nil {
		t.Fatalf("faults: %s", strings.Join(faults, "\n"))
	}
	l := c.Listeners
	if len(l) != 4 || len(l[0].Routes) != 6 || l[0].TLS.Cert != filepath.Join(dir, "cert.pem") {
		t.Fatalf("listeners are %+v", l)
	}
	upstream := l[0].Routes[4].Upstream
	if upstream.Login != "required" || upstream.Balance != "least-requests" || upstream.Timeouts.Connect != 5*time.Second {
		t.Errorf("upstream is %+v", upstream)
	}
	if l[1].Upstream.Login != "none" || len(l[1].Upstream.Targets) != 2 || l[1].Routes != nil {
		t.Errorf("second listener is %+v", l[1])
	}
	if root := l[2].Files.Root; root != filepath.Join(dir, "public") {
		t.Errorf("root is %s", root)
	}
	if l[3].TCP.Target != "127.0.0.1:3306" || !c.CookieSecure() || c.Admin.TokenFile != filepath.Join(dir, "admin.token") {
		t.Errorf("config is %+v", c)
	}
}

func TestAccepted(t *testing.T) {
	dir := folder(t)
	for name, test := range map[string]struct {
		text string
		good func(*Config) bool
	}{
		"bare embedded": {"redis: embedded: # here\nlog: {level: debug}", func(c *Config) bool { return c.Embedded() && c.Log.Level == "debug" }},
		"anchor":        {"listeners:\n- &l {address: 'a:1', routes: &r [{use: webapp}]}\n- {address: 'b:1', routes: *r}", func(c *Config) bool { return c.Listeners[1].Routes[0].Use == "webapp" }},
		"short lifetime": {"session: {absolute_timeout: 10s}", func(c *Config) bool {
			return c.Session.IdleTimeout == 10*time.Second && c.Session.TouchEvery == time.Second
		}},
		"short idle":         {"session: {idle_timeout: 2s}", func(c *Config) bool { return c.Session.TouchEvery == 200*time.Millisecond }},
		"long idle":          {"session: {idle_timeout: 24h}", func(c *Config) bool { return c.Session.AbsoluteTimeout == 24*time.Hour }},
		"short unverified":   {"session: {max_unverified: 2s}", func(c *Config) bool { return c.Session.VerifyEvery == 2*time.Second }},
		"short drain":        {"drain: {timeout: 3s}", func(c *Config) bool { return c.Drain.Spread == 3*time.Second }},
		"bytes":              {"documents: {max_message: 4096}", func(c *Config) bool { return c.Documents.MaxMessage == 4096 }},
		"only TLS":           {"listeners:\n- address: 'a:1'\n  tls: {cert: cert.pem, key: key.pem}", func(c *Config) bool { return c.Session.Cookie == "__Host-tandem" && c.CookieSecure() }},
		"TLS in front":       {"session: {secure: always}", func(c *Config) bool { return c.Session.Cookie == "__Host-tandem" && c.CookieSecure() }},
		"some TLS":           {"listeners:\n- address: 'a:1'\n  tls: {cert: cert.pem, key: key.pem}\n- address: 'a:2'", func(c *Config) bool { return c.Session.Cookie == "__Host-tandem" }},
		"listener says none": {"listeners:\n- address: 'a:1'", func(c *Config) bool { return len(c.Listeners[0].Routes) == 4 }},
		"free ports":         {"listeners:\n- address: 'a:0'\n- address: 'a:0'", func(c *Config) bool { return len(c.Listeners) == 2 }},
		"no limits":          {"limits: {frames_per_second: 0}", func(c *Config) bool { return c.Limits.FramesPerSecond == 0 }},
		"IPv6":               {"listeners:\n- address: '[::1]:80'", func(c *Config) bool { return c.Listeners[0].Address == "[::1]:80" }},
		"everything lists":   {"origins: ['*', 'https://A.test:8443']", func(c *Config) bool { return c.Origins[1] == "https://a.test:8443" }},
	} {
		t.Run(name, func(t *testing.T) {
			c, faults := load(t, dir, test.text)
			if faults != nil || !test.good(c) {
				t.Errorf("%+v, faults:\n%s", c, strings.Join(faults, "\n"))
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "tandem.yaml", []byte("redis: redis://file\nlog: {level: error}\nlisteners: [{address: 'file:1'}, {address: 'file:2'}]\n"))
	env := map[string]string{
		"TANDEM_CONFIG": file, "TANDEM_REDIS": "redis://env", "TANDEM_LISTEN": "env:1", "TANDEM_LOG_LEVEL": "warn",
		"TANDEM_SESSION_IDLE_TIMEOUT": "7m", "TANDEM_ADMIN_ADDRESS": "env:9", "TANDEM_ORIGINS": "same-origin, https://a.test",
		"TANDEM_DOCUMENTS_MAX_MESSAGE": "1MiB", "TANDEM_DRAIN_TIMEOUT": "",
	}
	c, err := Load(Source{Getenv: environment(env), Flags: []Flag{
		{"--redis", "redis", "redis://flag"}, {"--set", "limits.frames_per_second", "5"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Redis != "redis://flag" || c.Listeners[0].Address != "env:1" || c.Listeners[1].Address != "file:2" ||
		c.Log.Level != "warn" || c.Session.IdleTimeout != 7*time.Minute || c.Admin.Address != "env:9" ||
		len(c.Origins) != 2 || c.Documents.MaxMessage != 1<<20 || c.Limits.FramesPerSecond != 5 || c.Drain.Timeout != 30*time.Second {
		t.Errorf("config is %+v", c)
	}
}

func TestFaultsOfVariablesAndFlagsNameThem(t *testing.T) {
	env := map[string]string{"TANDEM_SESSION_IDLE_TIMEOUT": "soon", "TANDEM_LISTEN": "here", "TANDEM_REDIS": "redis//:secret@host"}
	_, err := Load(Source{Getenv: environment(env), Flags: []Flag{{"--log-level", "log.level", "loud"}, {"--set", "no.such", "1"}}})
	want := []string{
		`TANDEM_REDIS: redis: is not a Redis URL`,
		`TANDEM_SESSION_IDLE_TIMEOUT: session.idle_timeout: "soon" is not a duration`,
		`TANDEM_LISTEN: listeners[0].address: "here" is not an address`,
		`--log-level: log.level: "loud" is none of debug, info, warn, error`,
		`--set: there is no setting "no.such"`,
	}
	for _, line := range want {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+line) {
			t.Errorf("no fault %q in\n%v", line, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("a fault shows the password")
	}
	var faults Faults
	if errors.As(err, &faults); len(faults) != len(want) {
		t.Errorf("faults:\n%v", err)
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Load(Source{File: "no/such.yaml"}); err == nil || !strings.Contains(err.Error(), "no/such.yaml") {
		t.Errorf("Load: %v", err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "tandem.yaml", []byte("log: {level: warn}"))
	c, err := Load(Source{File: file, Flags: []Flag{{"--redis", "redis", "redis://flag"}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "tandem.yaml", []byte("log: {level: error}"))
	if c, err = c.Reload(); err != nil || c.Log.Level != "error" || c.Redis != "redis://flag" {
		t.Errorf("reloaded %+v, %v", c, err)
	}
}

func TestSettingsHaveNamesOfTheirOwn(t *testing.T) {
	c, err := Load(Source{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{"TANDEM_CONFIG": "--config"}
	for _, set := range settings(c) {
		if other, twice := seen[set.env]; twice {
			t.Errorf("%s and %s are both %s", set.path, other, set.env)
		}
		seen[set.env] = set.path
	}
}
