package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// go-redis looks after a Redis that could not be reached in a goroutine
	// that notices Close up to a second late.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// output is what one command line did.
type output struct {
	code           int
	stdout, stderr string
}

// command runs a command line as the process would, with stdin and an
// environment of its own.
func command(t *testing.T, stdin string, env map[string]string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return env[name] }
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr, getenv)
	return output{code, stdout.String(), stderr.String()}
}

// expect fails unless the command exited with code and said each of the words.
func (o output) expect(t *testing.T, code int, words ...string) output {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	for _, word := range words {
		if !strings.Contains(o.stdout+o.stderr, word) {
			t.Errorf("no %q\nstdout: %s\nstderr: %s", word, o.stdout, o.stderr)
		}
	}
	return o
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tandem.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no command":         {nil, `a command is missing after "tandem": check, serve, sessions, users, version`},
		"unknown command":    {[]string{"srve"}, "Did you mean this?\n\tserve"},
		"unknown flag":       {[]string{"serve", "--no-such-flag"}, "unknown flag: --no-such-flag"},
		"surplus argument":   {[]string{"serve", "now"}, `"now"`},
		"group alone":        {[]string{"users"}, `a command is missing after "tandem users": add, list, remove`},
		"unknown in group":   {[]string{"users", "rename"}, `unknown command "rename"`},
		"name missing":       {[]string{"users", "add"}, "accepts 1 arg(s), received 0"},
		"handle missing":     {[]string{"sessions", "show"}, "accepts 1 arg(s), received 0"},
		"nothing to revoke":  {[]string{"sessions", "revoke"}, "name one session by its handle, or a user by --user"},
		"too much to revoke": {[]string{"sessions", "revoke", "h", "--user", "u"}, "name one session"},
		"file missing":       {[]string{"check"}, "name the file: --config FILE"},
		"set without value":  {[]string{"serve", "--set", "redis"}, "write it as path=value"},
		"bad flag value":     {[]string{"serve", "--listen", "here"}, `--listen: listeners[0].address: "here" is not an address`},
		"bad log level":      {[]string{"users", "list", "--log-level", "loud"}, `--log-level: log.level: "loud" is none of debug, info, warn, error`},
		"unknown setting":    {[]string{"serve", "--set", "a.b=1"}, `--set: there is no setting "a.b"`},
	} {
		t.Run(name, func(t *testing.T) {
			command(t, "", nil, test.args...).expect(t, exitUsage, test.want)
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"users", "add", "--help"}} {
		command(t, "", nil, args...).expect(t, exitOK, "Usage:", "--config")
	}
}

func TestVersion(t *testing.T) {
	defer func(v, c string) { version, commit = v, c }(version, commit)
	version, commit = "v1.2.3", "abcdef"
	command(t, "", nil, "version").expect(t, exitOK, "tandem v1.2.3", "commit abcdef", "go1.")
}

func TestCheck(t *testing.T) {
	good := writeFile(t, "redis: redis://127.0.0.1:6379\n")
	if out := command(t, "", nil, "check", "--config", good).expect(t, exitOK); out.stdout != good+": ok\n" || out.stderr != "" {
		t.Errorf("output %+v", out)
	}
	command(t, "", map[string]string{"TANDEM_CONFIG": good}, "check").expect(t, exitOK, good+": ok")
	command(t, "", map[string]string{"TANDEM_DRAIN_TIMEOUT": "soon"}, "check", "--config", good).
		expect(t, exitFailed, "TANDEM_DRAIN_TIMEOUT: drain.timeout: ")
	command(t, "", nil, "check", "--config", "no/such.yaml").expect(t, exitFailed, "no/such.yaml")

	bad := writeFile(t, `redis: redis://127.0.0.1:6379/0
session:
  idle_timeout: soon
  colour: red
listeners:
  - address: 127.0.0.1:8080
    routes:
      - {path: /, use: magic}
`)
	out := command(t, "", nil, "check", "--config", bad).expect(t, exitFailed)
	lines := strings.Split(strings.TrimSpace(out.stderr), "\n")
	if len(lines) != 3 {
		t.Fatalf("stderr:\n%s", out.stderr)
	}
	for i, place := range []string{":3:17: ", ":4:3: ", ":8:24: "} {
		if !strings.HasPrefix(lines[i], bad+place) {
			t.Errorf("line %d is %q, want it to start with …%s", i, lines[i], place)
		}
	}
}

// With log.format json every line on stderr is JSON, faults too.
func TestFaultsInJSON(t *testing.T) {
	bad := writeFile(t, "log: {format: json}\nredis: 5\norigins: [a]\n")
	out := command(t, "", nil, "serve", "--config", bad).expect(t, exitFailed)
	lines := strings.Split(strings.TrimSpace(out.stderr), "\n")
	for _, line := range lines {
		var entry struct{ At, Err string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || !strings.HasPrefix(entry.At, bad+":") || entry.Err == "" {
			t.Errorf("line %q: %v", line, err)
		}
	}
	if len(lines) != 2 {
		t.Errorf("stderr:\n%s", out.stderr)
	}

	// A file that cannot be read says nothing about the log; the rest does.
	out = command(t, "", map[string]string{"TANDEM_LOG_FORMAT": "json"}, "serve", "--config", "no/such.yaml").expect(t, exitFailed)
	if !json.Valid([]byte(out.stderr)) || !strings.Contains(out.stderr, "no/such.yaml") {
		t.Errorf("stderr:\n%s", out.stderr)
	}
}

func TestEmbeddedHasNothingToAdminister(t *testing.T) {
	for _, args := range [][]string{
		{"users", "add", "ada", "--password-stdin"}, {"users", "list"}, {"users", "remove", "ada"},
		{"sessions", "list"}, {"sessions", "show", "h"}, {"sessions", "revoke", "h"},
	} {
		command(t, "password\n", nil, args...).expect(t, exitFailed, `lives inside the process of "tandem serve"`, "--redis")
	}
}

func TestCancelledCommandStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	code := run(ctx, []string{"users", "list", "--redis", "redis://127.0.0.1:1"}, strings.NewReader(""), &stderr, &stderr, func(string) string { return "" })
	if code != exitFailed {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
