// Package arch holds the import table of docs/ARCHITECTURE.md as a test.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/seed-6230208e/tandem"

const (
	goRedis   = "github.com/redis/go-redis"
	miniredis = "github.com/alicebob/miniredis"
	gorillaWS = "github.com/gorilla/websocket"
)

// rule: what the shipped files of one room import of ours (all that is allowed), and which foreign modules never.
type rule struct {
	ours   []string
	banned []string
}

// rooms is the table of docs/ARCHITECTURE.md. A package that is not in it fails the test.
var rooms = map[string]rule{
	"cmd/tandem/internal/config": {ours: []string{"sessionstore", "sessionstore/redisconn"}, banned: []string{goRedis, miniredis, gorillaWS}},
	"cmd/tandem":                 {ours: []string{"cmd/tandem/internal/config", "gateway", "webapp", "webapp/accounts", "ws", "ws/access", "ws/wsredis", "sessionstore", "sessionstore/redisconn"}, banned: []string{miniredis}},
	"gateway":                    {ours: []string{"sessionstore", "internal/problem", "internal/userheader"}, banned: []string{goRedis, miniredis}},
	"webapp":                     {ours: []string{"webapp/accounts", "sessionstore", "internal/problem", "internal/userheader"}, banned: []string{goRedis, miniredis, gorillaWS}},
	"webapp/accounts":            {ours: []string{"sessionstore/redisconn"}, banned: []string{miniredis, gorillaWS}},
	"sessionstore":               {ours: []string{"sessionstore/redisconn"}, banned: []string{miniredis, gorillaWS}},
	"sessionstore/storetest":     {ours: nil, banned: []string{goRedis, miniredis, gorillaWS}},
	"sessionstore/redisconn":     {ours: nil, banned: []string{gorillaWS}},
	"ws":                         {ours: []string{"sessionstore", "internal/problem"}, banned: []string{goRedis, miniredis}},
	"ws/wsredis":                 {ours: []string{"ws", "sessionstore/redisconn"}, banned: []string{"net/http", miniredis}},
	"ws/access":                  {ours: []string{"ws"}, banned: []string{goRedis, miniredis, gorillaWS}},
	"ws/wstest":                  {ours: []string{"ws"}, banned: []string{goRedis, miniredis}},
	"internal/problem":           {ours: []string{"sessionstore"}, banned: []string{gorillaWS}},
	"internal/userheader":        {ours: nil, banned: []string{goRedis, miniredis, gorillaWS}},
	"internal/redistest":         {ours: nil, banned: []string{gorillaWS}},
	"internal/arch":              {},
	"bench/sockets":              {ours: nil, banned: []string{gorillaWS, miniredis}},
	"bench/sockets/floor":        {ours: nil, banned: []string{miniredis}},
	"bench/edge":                 {ours: nil, banned: []string{gorillaWS, miniredis}},
	"e2e":                        {},
	"e2e/stockapp":               {ours: nil, banned: []string{miniredis, gorillaWS}},
}

// testOnly rooms are never imported by shipped files.
var testOnly = []string{"sessionstore/storetest", "ws/wstest", "internal/redistest", "e2e"}

// The files are read with go/parser and not through the build: a cached test result cannot hide a breach, since the
// test opens every file, and build tags hide none.
func TestImportTable(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		room := path.Dir(filepath.ToSlash(rel))
		seen[room] = true
		if strings.HasSuffix(file, "_test.go") {
			return nil // tests may use what they need
		}
		check(t, room, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range rooms {
		if !seen[room] {
			t.Errorf("the table names %s, which has no Go files: remove the row", room)
		}
	}
}

func check(t *testing.T, room, file string) {
	t.Helper()
	r, known := rooms[room]
	if !known {
		t.Errorf("%s: package %s is not in the import table; add a row here and in docs/ARCHITECTURE.md", file, room)
		return
	}
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range r.banned {
			if name == b || strings.HasPrefix(name, b+"/") {
				t.Errorf("%s imports %s, which %s never does", file, name, room)
			}
		}
		ours, ok := strings.CutPrefix(name, module+"/")
		if ok && !slices.Contains(r.ours, ours) {
			t.Errorf("%s imports %s; %s may import of ours: %v", file, ours, room, r.ours)
		}
		if ok && !slices.Contains(testOnly, room) && slices.Contains(testOnly, ours) {
			t.Errorf("%s: shipped code imports %s, which is for tests", file, ours)
		}
	}
}
