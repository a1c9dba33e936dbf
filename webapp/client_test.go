package webapp_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the client's types declare, the guide explains; what they declare of a connection, the client has.
func TestClientIsDocumented(t *testing.T) {
	types, client, guide := read(t, "static/tandem.d.ts"), read(t, "static/tandem.js"), read(t, "../docs/CLIENT.md")
	declared := regexp.MustCompile(`(?m)^  (?:readonly )?(\w+)\??[(:]`)
	for _, name := range []string{"interface Options", "interface Status", "class Connection"} {
		_, body, _ := strings.Cut(types, name+" {")
		body, _, ok := strings.Cut(body, "\n}")
		if !ok {
			t.Fatalf("tandem.d.ts has no %s", name)
		}
		for _, member := range declared.FindAllStringSubmatch(body, -1) {
			if word := regexp.MustCompile("`[^`\n]*\\b" + member[1] + "\\b[^`\n]*`"); !word.MatchString(guide) {
				t.Errorf("docs/CLIENT.md does not name %s of %s", member[1], name)
			}
			if is := regexp.MustCompile(`(?m)^  (?:async |get )?` + member[1] + `[ (]`); name == "class Connection" && !is.MatchString(client) {
				t.Errorf("tandem.js has no %s", member[1])
			}
		}
	}
}

// A file has one reason and can be read at one go.
func TestClientFilesAreShort(t *testing.T) {
	files, err := filepath.Glob("static/*.js")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		if lines := strings.Count(read(t, file), "\n"); lines > 400 {
			t.Errorf("%s has %d lines, 400 are enough", file, lines)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
