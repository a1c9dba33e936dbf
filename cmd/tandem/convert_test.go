package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/cmd/tandem/internal/config"
)

func loadText(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Load(config.Source{File: writeFile(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Zero means "none" in the configuration and "the default" in most rooms.
func TestZeroStaysNone(t *testing.T) {
	cfg := loadText(t, "redis_check_every: 0s\nsession: {touch_every: 0s}\ndrain: {timeout: 0s}\nlimits: {frames_per_second: 0}\n")
	if c := redisConfig(cfg, nil, nil); c.CheckEvery >= 0 {
		t.Errorf("CheckEvery is %v", c.CheckEvery)
	}
	if c := sessionConfig(cfg, nil, nil); c.TouchEvery != 1 {
		t.Errorf("TouchEvery is %v", c.TouchEvery)
	}
	if c := hubConfig(cfg); c.Drain.Timeout != 1 || c.Drain.Spread != 1 || c.Limits.FramesPerSecond != 0 || c.Limits.OperationsPerSecond != 100 {
		t.Errorf("hub is %+v", c)
	}
}

func TestConvert(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(" secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := loadText(t, `
session: {secure: always, serializer: gob}
admin: {token_file: `+token+`}
listeners:
  - address: 127.0.0.1:0
    routes:
      - {path: /ws/documents/, use: documents}
      - {path: /docs/, use: documents}
      - {host: a.test, path: /ws/documents/, use: documents}
      - {path: /files/, files: {root: `+dir+`, spa: true}}
      - {path: /api/, upstream: {targets: ["http://127.0.0.1:1/"], retries: 0, health: {}, strip_prefix: true}}
  - {address: 127.0.0.1:0, tcp: {target: 127.0.0.1:1}}
`)
	if got := strings.Join(hubConfig(cfg).Routes, " "); got != "/ws/documents/ /docs/" {
		t.Errorf("document routes are %s", got)
	}
	if c := storeConfig(cfg); c.Cookie != "__Host-tandem" || !c.Options.Secure {
		t.Errorf("store is %+v", c)
	}
	if got, err := adminToken(cfg); err != nil || got != "secret" {
		t.Errorf("token is %q, %v", got, err)
	}
	readable, writable, err := clientPatterns(cfg)
	if err != nil || !readable.Match("user.name") || writable.Match("user.name") || !writable.Match("chat.name") {
		t.Errorf("patterns: %v", err)
	}
	l := gatewayListeners(cfg)
	up := l[0].Routes[4].Upstream
	if up.Targets[0] != "http://127.0.0.1:1" || up.Retries != 0 || up.Health.Path != "/" || !up.StripPrefix || up.Timeouts.Connect == 0 {
		t.Errorf("upstream is %+v", up)
	}
	if !l[0].Routes[3].Files.SPA || l[1].TCP.Target != "127.0.0.1:1" || l[1].Routes != nil {
		t.Errorf("listeners are %+v", l)
	}
}
