package storetest_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
	"github.com/seed-6230208e/tandem/sessionstore/storetest"
)

//go:generate go test -run ^TestDocument$ -update .

var update = flag.Bool("update", false, "write the table of docs/STORE.md instead of comparing it")

// The table of docs/STORE.md is what the checks find.
func TestDocument(t *testing.T) {
	const (
		file  = "../../docs/STORE.md"
		begin = "<!-- begin: written by make docs -->\n"
		end   = "<!-- end -->\n"
	)
	doc, err := os.ReadFile(file)
	must(t, err)
	before, rest, ok1 := strings.Cut(string(doc), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	want := "\n" + promiseTable(t) + "\n"
	switch {
	case table == want:
	case *update:
		must(t, os.WriteFile(file, []byte(before+begin+want+end+after), 0o644))
	default:
		t.Errorf("%s: not what the checks find; `make docs` writes:\n%s", file, want)
	}
}

func promiseTable(t *testing.T) string {
	columns := []struct {
		name    string
		harness storetest.Harness
	}{
		{"`sessionstore`", ours(t, redistest.Start(t), sessionstore.Config{}, sessionstore.StoreConfig{Cookie: "session"})},
		{"redisstore/v9.0.0", stock(t, redistest.Start(t), nil)},
		{"`FilesystemStore`", filesystemStore(t)},
		{"`CookieStore`", cookieStore()},
	}
	reports := make([]storetest.Report, len(columns))
	var b strings.Builder
	b.WriteString("| promise |")
	for i, c := range columns {
		reports[i] = storetest.Check(t.Context(), c.harness)
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	marks := map[storetest.Verdict]string{
		storetest.Held: "yes", storetest.Broken: "**no**", storetest.NotApplicable: "–",
	}
	for i, p := range storetest.Promises() {
		fmt.Fprintf(&b, "| %s `%s` |", p.Name, p.ID)
		for _, r := range reports {
			fmt.Fprintf(&b, " %s |", marks[r[i].Verdict])
		}
		b.WriteByte('\n')
	}

	b.WriteString("\nWhat redisstore/v9.0.0 breaks, how, and what that leads to:\n\n")
	b.WriteString("| promise | what is seen | so that |\n|---|---|---|\n")
	for _, r := range reports[1] {
		if r.Verdict == storetest.Broken {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.ID, r.Detail, r.Why)
		}
	}
	return b.String()
}
