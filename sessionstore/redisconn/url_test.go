package redisconn

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]target{
		"embedded:":             {kind: kindEmbedded},
		"redis://localhost":     {kind: kindSingle, addrs: []string{"localhost:6379"}},
		"redis://127.0.0.1:7/3": {kind: kindSingle, addrs: []string{"127.0.0.1:7"}, db: 3},
		"REDIS://h/":            {kind: kindSingle, addrs: []string{"h:6379"}},
		"redis://[::1]":         {kind: kindSingle, addrs: []string{"[::1]:6379"}},
		"redis://[::1]:7":       {kind: kindSingle, addrs: []string{"[::1]:7"}},
		"redis://:p%40ss@h":     {kind: kindSingle, addrs: []string{"h:6379"}, password: "p@ss"},
		"redis://a:b:c@h?pool_size=5": {
			kind: kindSingle, addrs: []string{"h:6379"}, username: "a", password: "b:c", poolSize: 5,
		},
		"rediss://h/1?ca_file=%2Fca.pem&insecure_skip_verify=true": {
			kind: kindSingle, tls: true, addrs: []string{"h:6379"}, db: 1, caFile: "/ca.pem", insecureSkipVerify: true,
		},
		"redis+sentinel://h1:26379,h2/mymaster/2?sentinel_password=x": {
			kind: kindSentinel, addrs: []string{"h1:26379", "h2:26379"}, master: "mymaster", db: 2, sentinelPassword: "x",
		},
		"rediss+sentinel://u:p@h1/m": {
			kind: kindSentinel, tls: true, addrs: []string{"h1:26379"}, master: "m", username: "u", password: "p",
		},
		"redis+cluster://h1:7000,h2:7001": {kind: kindCluster, addrs: []string{"h1:7000", "h2:7001"}},
		"rediss+cluster://h1/0":           {kind: kindCluster, tls: true, addrs: []string{"h1:6379"}},
	} {
		got, err := parseURL(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", raw, got, err, want)
		}
	}
}

func TestParseURLErrors(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                "allowed are redis://",
		"localhost:6379":                  "unknown form; allowed are redis://",
		"http://h":                        "unknown form",
		"embedded://":                     "unknown form",
		"redis://":                        "bad host",
		"redis://h:0":                     "bad port",
		"redis://h:x":                     "bad port",
		"redis://h:70000":                 "bad port",
		"redis://::1":                     "bad address",
		"redis://h h":                     "bad host",
		"redis://h/x":                     `bad database "x"`,
		"redis://h/-1":                    "bad database",
		"redis://h/0/1":                   "bad database",
		"redis://h1,h2":                   "several hosts",
		"redis://h?db=1":                  `option "db" is not allowed`,
		"redis://h?ca_file=x":             `option "ca_file" is not allowed`,
		"redis://h?pool_size=0":           "bad pool_size",
		"rediss://h?insecure_skip_verify": "bad insecure_skip_verify",
		"redis://h?%zz":                   "bad query",
		"redis+sentinel://h":              "names no master",
		"redis+sentinel://h/m/x":          "bad database",
		"redis+cluster://h/1":             "database 0 only",
		"redis://secret@h":                "user but no password",
		"redis://u:secret#1@h":            "percent-encoded",
		"redis://u:secret/1@h":            "percent-encoded",
		"redis://u:secret?1@h":            "percent-encoded",
		"redis://u:%zzsecret@h":           "percent-encoded",
		"redis:/u:secret@h":               "unknown form",
		"redis+sentinel://h/?sentinel_password=secret": "names no master",
	} {
		_, err := parseURL(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", raw, err, want)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"embedded:", "redis://u:p@h:1/2?pool_size=3", "rediss+sentinel://:p%40@[::1]:7,h2/m/0", "redis+cluster://a,b", "redis://a@b@c/#?",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := parseURL(raw)
		if err != nil {
			return
		}
		if got.kind != kindEmbedded && len(got.addrs) == 0 {
			t.Errorf("%q: no address", raw)
		}
		for _, addr := range got.addrs {
			if again, err := hostPort(addr, "1"); err != nil || again != addr {
				t.Errorf("%q: %q read again is %q, %v", raw, addr, again, err)
			}
		}
	})
}

func TestOpenRefusesBadConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no URL":           {},
		"missing CA file":  {URL: "rediss://h?ca_file=/does/not/exist"},
		"CA file not PEM":  {URL: "rediss://h?ca_file=url_test.go"},
		"negative timeout": {URL: "embedded:", CommandTimeout: -1},
	} {
		if c, err := Open(cfg); err == nil {
			_ = c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
