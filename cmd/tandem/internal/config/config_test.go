package config

import (
	"bytes"
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
	}}}
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

func TestEveryFaultIsReportedAtItsPlace(t *testing.T) {
	_, faults := load(t, t.TempDir(), `redis: redis://127.0.0.1:6379
session:
  idle_timout: 30m
  touch_every: 10
listeners:
  - address: 127.0.0.1:8080
    routes:
      - {path: /ws/documents/, use: documentz}
`)
	want := []string{
		`tandem.yaml:3:3: session: unknown key "idle_timout", did you mean "idle_timeout"?; known are cookie, `,
		`tandem.yaml:4:16: session.touch_every: "10" is not a duration; write a number with a unit, such as `,
		`tandem.yaml:8:37: listeners[0].routes[0].use: "documentz" is none of documents, pairs, webapp`,
	}
	if len(faults) != len(want) {
		t.Fatalf("faults:\n%s", strings.Join(faults, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(faults[i], want[i]) {
			t.Errorf("fault %d\n got %s\nwant %s…", i, faults[i], want[i])
		}
	}
}

func TestFaults(t *testing.T) {
	dir := folder(t)
	listener := func(rest string) string { return "listeners:\n  - address: 127.0.0.1:8080\n    " + rest }
	route := func(rest string) string { return listener("routes:\n      - " + rest) }
	for name, test := range map[string]struct{ text, want string }{
		"syntax":                {"a: [1, 2\nb: 3", "2:1: this is not YAML: "},
		"tab":                   {"log:\n\tlevel: info", "2:"},
		"not a section":         {"[1, 2]", "1:1: is a list; a section with keys is wanted: redis, "},
		"two documents":         {"log: {level: info}\n---\nlog: {level: info}", "3:1: a second YAML document"},
		"key twice":             {"origins: ['*']\norigins: ['*']", `2:1: "origins" is given twice, first in line 1`},
		"unknown section":       {"sesion: {}", `1:1: unknown key "sesion", did you mean "session"?`},
		"merge key":             {"log: &l {level: info}\ndrain: {<<: *l}", `2:9: drain: "<<" is not supported`},
		"no anchor":             {"log: *x", "1:6: log: no anchor &x"},
		"alias to itself":       {"listeners: &x [*x]", "1:15: listeners[0]: is a list; a section"},
		"tag":                   {"redis: !!str embedded", "1:8: redis: YAML tags such as !!str"},
		"null":                  {"redis:\n", "1:1: redis: has no value; write text"},
		"number for text":       {"session: {cookie: 12}", "1:19: session.cookie: is 12; text is wanted; put it in quotes"},
		"text for number":       {"pairs: {mode: echo}\nlimits: {frames_per_second: many}", `2:29: limits.frames_per_second: is the text "many"; a whole number is wanted`},
		"fraction":              {"limits: {frames_per_second: 1.5}", "1:29: limits.frames_per_second: is 1.5; a whole number is wanted"},
		"negative":              {"limits: {frames_per_second: -1}", "1:29: limits.frames_per_second: -1 is too small; at least 0"},
		"huge":                  {"limits: {frames_per_second: 99999999999999999999}", "1:29: limits.frames_per_second: "},
		"size":                  {"documents: {max_message: 64KB}", `1:26: documents.max_message: "64KB" is not a size; write bytes, or a number with KiB`},
		"size range":            {"documents: {max_message: 10}", "1:26: documents.max_message: 10B is too small; at least 1KiB"},
		"size too large":        {"documents: {max_message: 99999999999GiB}", "1:26: documents.max_message: \"99999999999GiB\" is too large"},
		"text for section":      {"log: info", `1:6: log: is the text "info"; a section with keys is wanted: format, level`},
		"text for list":         {"origins: same-origin", `1:10: origins: is the text "same-origin"; a list is wanted`},
		"list for text":         {"redis: [a]", "1:8: redis: is a list; text is wanted"},
		"truth":                 {listener("files: {root: public, spa: yes}"), `3:32: listeners[0].files.spa: is the text "yes"; true or false is wanted`},
		"redis scheme":          {"redis: http://127.0.0.1", "1:8: redis: is not a Redis URL; write one that begins with redis://"},
		"redis host":            {"redis: redis:///0", "1:8: redis: names no Redis host"},
		"origin":                {"origins: [same-origin, example.test]", `1:24: origins[1]: "example.test" is not an origin; write same-origin, *`},
		"idle over absolute":    {"session: {idle_timeout: 2h, absolute_timeout: 1h}", "1:25: session.idle_timeout: 2h0m0s is longer than absolute_timeout, 1h0m0s"},
		"touch over idle":       {"session: {idle_timeout: 1m, touch_every: 1m}", "1:42: session.touch_every: 1m0s is not shorter than idle_timeout"},
		"verify range":          {"session: {verify_every: 1ms}", "1:25: session.verify_every: 1ms is too small; at least 100ms"},
		"verify over max":       {"session: {verify_every: 1m, max_unverified: 10s}", "1:45: session.max_unverified: 10s is shorter than verify_every"},
		"negative duration":     {"drain: {timeout: -1s}", "1:18: drain.timeout: -1s is too small; at least 0s"},
		"spread over timeout":   {"drain: {timeout: 5s, spread: 10s}", "1:30: drain.spread: 10s is longer than timeout, 5s"},
		"writable identity":     {`session: {client_writable: ["chat.*", "user.*"]}`, `1:39: session.client_writable[1]: "user.*" would let page scripts write user.id`},
		"cookie name":           {"session: {cookie: 'a b'}", `1:19: session.cookie: "a b" is not a cookie name`},
		"host cookie, no TLS":   {"session: {cookie: __Host-x}", `1:19: session.cookie: "__Host-x" needs TLS`},
		"key prefix":            {"session: {key_prefix: '{a}'}", `1:23: session.key_prefix: "{a}" cannot be a key prefix`},
		"no listeners":          {"listeners: []", "1:12: listeners: is empty"},
		"listener not section":  {"listeners: [8080]", "1:13: listeners[0]: is 8080; a section with keys is wanted: address, "},
		"no address":            {"listeners:\n  - files: {root: public}", "2:5: listeners[0].address: is missing; it must be given: host:port"},
		"empty address":         {"listeners:\n  - {address: '', files: {root: public}}", "2:15: listeners[0].address: is empty; it must be given"},
		"address":               {"listeners:\n  - address: localhost", `2:14: listeners[0].address: "localhost" is not an address; write host:port`},
		"port":                  {"listeners:\n  - address: localhost:66666", `2:14: listeners[0].address: "localhost:66666" has the port "66666"`},
		"address twice":         {"listeners:\n  - address: localhost:81\n  - address: LOCALHOST:81", `3:14: listeners[1].address: "LOCALHOST:81" is taken by listeners[0].address`},
		"wildcard and address":  {"listeners:\n  - address: :81\n  - address: 127.0.0.1:81", `3:14: listeners[1].address: "127.0.0.1:81" is taken by`},
		"admin address taken":   {"listeners:\n  - address: 127.0.0.1:9090", `1:1: admin.address: "127.0.0.1:9090" is taken by listeners[0].address`},
		"routes and upstream":   {listener("routes: [{use: webapp}]\n    upstream: {targets: ['http://a']}"), "4:15: listeners[0].upstream: a listener has one of routes, upstream, files and tcp; this one has routes and upstream"},
		"empty routes":          {listener("routes: []"), "3:13: listeners[0].routes: is empty"},
		"tcp with tls":          {listener("tcp: {target: 'a:1'}\n    tls: {cert: cert.pem, key: key.pem}"), "4:10: listeners[0].tls: a tcp listener"},
		"tcp target":            {listener("tcp: {target: ':1'}"), `3:19: listeners[0].tcp.target: ":1" lacks a host`},
		"cert missing":          {listener("tls: {cert: no.pem, key: key.pem}"), `3:17: listeners[0].tls.cert: the file "no.pem" cannot be read: no such file`},
		"cert is the key":       {listener("tls: {cert: key.pem, key: key.pem}"), "3:10: listeners[0].tls: "},
		"key not named":         {listener("tls: {cert: cert.pem}"), "3:10: listeners[0].tls.key: is missing"},
		"tls without value":     {listener("tls:\n"), "3:5: listeners[0].tls: has no value"},
		"root missing":          {listener("files: {root: nowhere}"), `3:19: listeners[0].files.root: the directory "nowhere" cannot be read`},
		"root is a file":        {listener("files: {root: key.pem}"), `3:19: listeners[0].files.root: "key.pem" is a file`},
		"files without root":    {listener("files: {spa: true}"), "3:12: listeners[0].files.root: is missing"},
		"token missing":         {"admin: {token_file: none}", `1:21: admin.token_file: the file "none" cannot be read`},
		"path":                  {route("{path: assets/, use: webapp}"), `4:16: listeners[0].routes[0].path: "assets/" does not begin with /`},
		"path dots":             {route("{path: /a/../b, use: webapp}"), `4:16: listeners[0].routes[0].path: "/a/../b" holds ".."`},
		"host":                  {route("{host: 'http://a', use: webapp}"), `4:16: listeners[0].routes[0].host: "http://a" is not a host name`},
		"route says nothing":    {route("{path: /}"), "4:9: listeners[0].routes[0]: says not what answers; write one of use"},
		"route says too much":   {route("{use: webapp, files: {root: public}}"), "4:30: listeners[0].routes[0].files: a route has one of use, files and upstream; this one has use and files"},
		"route twice":           {route("{path: /a, use: webapp}\n      - {path: /a, use: pairs}"), "5:9: listeners[0].routes[1]: is never reached: routes[0]"},
		"no targets":            {route("{upstream: {login: none}}"), "4:20: listeners[0].routes[0].upstream.targets: is missing"},
		"empty targets":         {route("{upstream: {targets: []}}"), "4:30: listeners[0].routes[0].upstream.targets: is empty"},
		"target URL":            {route("{upstream: {targets: ['127.0.0.1:3000']}}"), `4:31: listeners[0].routes[0].upstream.targets[0]: "127.0.0.1:3000" is not a URL of a server`},
		"target scheme":         {route("{upstream: {targets: ['ftp://a']}}"), `4:31: listeners[0].routes[0].upstream.targets[0]: "ftp://a" is not a URL`},
		"balance":               {route("{upstream: {targets: ['http://a'], balance: random}}"), `4:53: listeners[0].routes[0].upstream.balance: "random" is none of least-requests, round-robin, session-hash`},
		"health interval":       {route("{upstream: {targets: ['http://a'], health: {interval: 0s}}}"), "4:63: listeners[0].routes[0].upstream.health.interval: 0s is too small"},
		"retries":               {route("{upstream: {targets: ['http://a'], retries: -1}}"), "4:53: listeners[0].routes[0].upstream.retries: -1 is too small"},
		"unknown upstream key":  {route("{upstream: {targets: ['http://a'], logn: none}}"), `4:44: listeners[0].routes[0].upstream: unknown key "logn", did you mean "login"?`},
		"no second fault after": {route("{use: [webapp]}"), "4:15: listeners[0].routes[0].use: is a list; text is wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := load(t, dir, test.text)
			if len(faults) != 1 || !strings.HasPrefix(faults[0], "tandem.yaml:"+test.want) {
				t.Errorf("faults\n got %s\nwant tandem.yaml:%s…", strings.Join(faults, "\n     "), test.want)
			}
		})
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

// FuzzLoad: no text makes Load panic, and each fault has a place.
func FuzzLoad(f *testing.F) {
	sample, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	for _, text := range []string{"log: &x *x", "a: [1, 2\nb: 3", "? a\n: b", "- {a, b}", "redis: embedded:", "listeners: [{routes: [{}]}]", "{{a}: b}", "a: |\n x\n", "<<: *a", "\"\\u0000\": 1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &Config{}
		fillDefaults(reflect.ValueOf(c).Elem())
		s := newState()
		s.decode("f.yaml", bytes.Clone(text), c)
		for _, fault := range s.faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Message == "" {
				t.Errorf("fault without a place: %+v", fault)
			}
		}
		if !s.unread {
			v := &validator{s, c}
			v.run()
		}
	})
}
