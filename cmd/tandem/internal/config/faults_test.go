package config

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
)

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
		"directive":             {"%YAML 1.2\n---\nlog: {level: loud}", `3:14: log.level: "loud" is none of`},
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
		"negative upgrades":     {"limits: {upgrades_per_second: -1}", "1:31: limits.upgrades_per_second: -1 is too small; at least 0"},
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
		"redis port":            {"redis: redis://:secret@127.0.0.1:99999", `1:8: redis: redis URL "redis://***@127.0.0.1:99999": bad port in "127.0.0.1:99999": want 1 to 65535`},
		"redis database":        {"redis: redis://127.0.0.1/x", `1:8: redis: redis URL "redis://127.0.0.1/x": bad database "x"`},
		"redis master":          {"redis: redis+sentinel://127.0.0.1", `1:8: redis: redis URL "redis+sentinel://127.0.0.1": names no master`},
		"redis CA":              {"redis: rediss://127.0.0.1?ca_file=/no/such.pem", "1:8: redis: redis URL: ca_file: "},
		"redis host":            {"redis: redis:///0", "1:8: redis: names no Redis host"},
		"signing key":           {"assertion: {key_files: [key.pem]}", `1:25: assertion.key_files[0]: the file "key.pem" holds a key of another kind; an Ed25519 key`},
		"no signing key":        {"assertion: {key_files: [admin.token]}", `1:25: assertion.key_files[0]: the file "admin.token" holds no private key in PEM form`},
		"nobody signs":          {"listeners: [{address: 'a:1', upstream: {targets: ['http://b:2'], assertion: true}}]", `1:77: listeners[0].upstream.assertion: needs a key to sign with`},
		"trusted proxy":         {"trusted_proxies: [private, example.test]", `1:28: trusted_proxies[1]: "example.test" is not a network; write one such as 10.0.0.0/8`},
		"trusted proxy's bits":  {"trusted_proxies: [10.0.0.1/8]", `1:19: trusted_proxies[0]: "10.0.0.1/8" has bits behind its prefix; write 10.0.0.0/8`},
		"origin":                {"origins: [same-origin, example.test]", `1:24: origins[1]: "example.test" is not an origin; write same-origin, *`},
		"idle over absolute":    {"session: {idle_timeout: 2h, absolute_timeout: 1h}", "1:25: session.idle_timeout: 2h0m0s is longer than absolute_timeout, 1h0m0s"},
		"touch over idle":       {"session: {idle_timeout: 1m, touch_every: 1m}", "1:42: session.touch_every: 1m0s is not shorter than idle_timeout"},
		"verify range":          {"session: {verify_every: 1ms}", "1:25: session.verify_every: 1ms is too small; at least 100ms"},
		"verify over max":       {"session: {verify_every: 1m, max_unverified: 10s}", "1:45: session.max_unverified: 10s is shorter than verify_every"},
		"negative duration":     {"drain: {timeout: -1s}", "1:18: drain.timeout: -1s is too small; at least 0s"},
		"spread over timeout":   {"drain: {timeout: 5s, spread: 10s}", "1:30: drain.spread: 10s is longer than timeout, 5s"},
		"writable identity":     {`session: {client_writable: ["chat.*", "user.*"]}`, `1:39: session.client_writable[1]: "user.*" would let page scripts write user.id`},
		"authorize twice":       {"documents: {authorize: {attribute: docs, url: 'http://a/b'}}", "1:47: documents.authorize.url: attribute is given too"},
		"authorize pattern":     {"documents: {authorize: {attribute: 'docs.*'}}", `1:36: documents.authorize.attribute: "docs.*" is not an attribute's name`},
		"authorize reserved":    {"documents: {authorize: {attribute: tandem.sid}}", `1:36: documents.authorize.attribute: "tandem.sid" is not an attribute's name`},
		"authorize by client":   {"documents: {authorize: {attribute: docs, write_attribute: chat.docs}}", `1:59: documents.authorize.write_attribute: "chat.docs" may be written by page scripts`},
		"authorize write alone": {"documents: {authorize: {write_attribute: docs}}", "1:42: documents.authorize.write_attribute: needs attribute"},
		"authorize URL":         {"documents: {authorize: {url: 'ftp://a/b'}}", `1:30: documents.authorize.url: "ftp://a/b" is not a URL; write http://host:port/path`},
		"authorize URL secret":  {"documents: {authorize: {url: 'http://u:p@a/b'}}", "1:30: documents.authorize.url: a URL with a user name, password or fragment"},
		"presence grace":        {"documents: {presence_grace: 2m}", "1:29: documents.presence_grace: 2m0s is too large; at most 1m"},
		"authorize cache":       {"documents: {authorize: {url: 'http://a/b', cache: 0s}}", "1:51: documents.authorize.cache: 0s is too small; at least 1s"},
		"cookie name":           {"session: {cookie: 'a b'}", `1:19: session.cookie: "a b" is not a cookie name`},
		"seal keys missing":     {"session: {seal_keys_file: no.keys}", `1:27: session.seal_keys_file: the file "no.keys" cannot be read`},
		"no seal key":           {"session: {seal_keys_file: admin.token}", `1:27: session.seal_keys_file: the file "admin.token": line 1 is not 32 bytes in base64; write `},
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
		"routes and upstream":   {listener("routes: [{use: webapp}]\n    upstream: {targets: ['http://a']}"), "4:15: listeners[0].upstream: a listener has one of routes, upstream, files, tcp and redirect; this one has routes and upstream"},
		"empty routes":          {listener("routes: []"), "3:13: listeners[0].routes: is empty"},
		"tcp with tls":          {listener("tcp: {target: 'a:1'}\n    tls: {cert: cert.pem, key: key.pem}"), "4:10: listeners[0].tls: a tcp listener"},
		"redirect":              {listener("redirect: http"), `3:15: listeners[0].redirect: "http" is no redirect; write https`},
		"redirect over TLS":     {listener("redirect: https\n    tls: {cert: cert.pem, key: key.pem}"), "4:10: listeners[0].tls: a listener that redirects"},
		"tcp target":            {listener("tcp: {target: ':1'}"), `3:19: listeners[0].tcp.target: ":1" lacks a host`},
		"cert missing":          {listener("tls: {cert: no.pem, key: key.pem}"), `3:17: listeners[0].tls.cert: the file "no.pem" cannot be read: no such file`},
		"cert is the key":       {listener("tls: {cert: key.pem, key: key.pem}"), "3:10: listeners[0].tls: "},
		"key not named":         {listener("tls: {cert: cert.pem}"), "3:10: listeners[0].tls.key: is missing"},
		"tls without value":     {listener("tls:\n"), "3:5: listeners[0].tls: has no value"},
		"root missing":          {listener("files: {root: nowhere}"), `3:19: listeners[0].files.root: the directory "nowhere" cannot be read`},
		"root is a file":        {listener("files: {root: key.pem}"), `3:19: listeners[0].files.root: "key.pem" is a file`},
		"files without root":    {listener("files: {spa: true}"), "3:12: listeners[0].files.root: is missing"},
		"cache pattern":         {listener("files: {root: public, cache: [{match: '/a/*.js', control: no-cache}]}"), `3:43: listeners[0].files.cache[0].match: "/a/*.js" is neither a directory nor a pattern`},
		"cache control":         {listener("files: {root: public, cache: [{match: '*.js'}]}"), "3:35: listeners[0].files.cache[0].control: is missing"},
		"token missing":         {"admin: {token_file: none}", `1:21: admin.token_file: the file "none" cannot be read`},
		"path":                  {route("{path: assets/, use: webapp}"), `4:16: listeners[0].routes[0].path: "assets/" does not begin with /`},
		"target with a path":    {route("{upstream: {targets: ['http://a/b']}}"), `4:31: listeners[0].routes[0].upstream.targets[0]: "http://a/b" holds a path`},
		"empty prefix":          {"session: {key_prefix: ''}", "1:23: session.key_prefix: is empty; it must be given"},
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
		"concurrency":           {route("{upstream: {targets: ['http://a'], concurrency: {waiting: 1}}}"), "4:57: listeners[0].routes[0].upstream.concurrency.requests: is missing"},
		"send timeout":          {route("{upstream: {targets: ['http://a'], timeouts: {send: 0s}}}"), "4:61: listeners[0].routes[0].upstream.timeouts.send: 0s is too small"},
		"rate":                  {route("{use: webapp, rate: {per: 1s}}"), "4:29: listeners[0].routes[0].rate.requests: is missing"},
		"max body":              {route("{use: webapp, max_body: -1}"), "4:33: listeners[0].routes[0].max_body: -1B is too small"},
		"header limit":          {listener("limits: {header: 10}"), "3:22: listeners[0].limits.header: 10B is too small"},
		"body timeout":          {listener("limits: {body_timeout: fast}"), `3:28: listeners[0].limits.body_timeout: "fast" is not a duration`},
		"methods":               {route("{use: webapp, methods: ['G T']}"), `4:33: listeners[0].routes[0].methods[0]: "G T" is not a method`},
		"tcp without target":    {listener("tcp: {idle: 1m}"), "3:10: listeners[0].tcp: has one of target and targets"},
		"tcp with both":         {listener("tcp: {target: 'a:1', targets: ['b:1']}"), "3:10: listeners[0].tcp: has one of target and targets"},
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
