package gateway

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChooseCoding(t *testing.T) {
	const br, zstd, gzip = 1, 2, 4
	for _, c := range []struct {
		header string
		set    uint8
		want   string
	}{
		{"gzip, deflate, br, zstd", br | zstd | gzip, "br"},
		{"gzip, deflate, br, zstd", zstd | gzip, "zstd"},
		{"gzip, deflate", br | gzip, "gzip"},
		{"gzip;q=1, br;q=0.5", br | gzip, "gzip"},
		{"gzip;q=0.5, br;q=0.50", br | gzip, "br"},
		{"br;q=0, gzip", br | gzip, "gzip"},
		{"br;q=0, *", br | gzip, "gzip"},
		{"*;q=0, gzip;q=0.1", br | gzip, "gzip"},
		{"*;q=0", br, ""},
		{"*", br | gzip, "br"},
		{"BR", br, "br"},
		{"x-gzip", gzip, "gzip"},
		{" br ; q=1 ", br, "br"},
		{"identity", br, ""},
		{"identity;q=1, br;q=0.5", br, ""},
		{"identity;q=0.5, br", br, "br"},
		{"identity;q=0", br, ""},
		{"brotli, gzippy", br | gzip, ""},
		{"br;q=2", br, ""},
		{"br;q=NaN", br, ""},
		{"br;q=x", br, ""},
		{"", br, ""},
	} {
		got := ""
		if i := chooseCoding([]string{c.header}, c.set); i >= 0 {
			got = codings[i].name
		}
		if got != c.want {
			t.Errorf("%q of %b: %q, want %q", c.header, c.set, got, c.want)
		}
	}
	if chooseCoding(nil, br) != -1 {
		t.Error("without the header")
	}
	if i := chooseCoding([]string{"gzip", "br;q=0.5"}, br|gzip); codings[i].name != "gzip" {
		t.Error("over two headers")
	}
}

// A file that lies ready in several codings: each is a representation of its
// own, with its own validator and ranges.
func TestPrecompressed(t *testing.T) {
	root := write(t, map[string]string{
		"app.js": "let plain = 'as it is'", "app.js.br": "0123456789", "app.js.gz": "gzipped", "app.js.zst": "zst",
		"noext": "<!doctype html><p>sniffed", "noext.gz": "gzipped page",
		"only.txt.gz": "no plain form", "alone.txt": "alone",
		"index.html": "<h1>home", "index.html.br": "brotli home",
		"dir.js": "x", "dir.js.br/x": "", "out.js": "x",
	})
	outside := write(t, map[string]string{"secret": "secret"})
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "out.js.br")); err != nil {
		t.Fatal(err)
	}
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: root, SPA: true}}}})
	u := g.url() + "/app.js"

	plain := get(t, u, "Accept-Encoding", "identity")
	coded := get(t, u, "Accept-Encoding", "gzip, br")
	for name, a := range map[string]answer{"plain": plain, "coded": coded} {
		if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/javascript") || a.header.Get("Vary") != "Accept-Encoding" || a.header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if plain.header.Get("Content-Encoding") != "" || plain.body != "let plain = 'as it is'" {
		t.Errorf("plain: %v %q", plain.header, plain.body)
	}
	if coded.header.Get("Content-Encoding") != "br" || coded.header.Get("Content-Length") != "10" || coded.body != "0123456789" {
		t.Errorf("coded: %v %q", coded.header, coded.body)
	}
	etag := coded.header.Get("ETag")
	if etag == plain.header.Get("ETag") || etag == get(t, u, "Accept-Encoding", "gzip").header.Get("ETag") {
		t.Error("two representations share an ETag")
	}
	for _, c := range []struct {
		path   string
		header []string
		status int
		body   string
		coding string
	}{
		{"/app.js", []string{"Accept-Encoding", "br", "If-None-Match", etag}, 304, "", ""},
		{"/app.js", []string{"Accept-Encoding", "gzip", "If-None-Match", etag}, 200, "gzipped", "gzip"},
		{"/app.js", []string{"Accept-Encoding", "br", "Range", "bytes=2-4"}, 206, "234", "br"},
		{"/app.js", []string{"Accept-Encoding", "br", "Range", "bytes=2-4", "If-Range", plain.header.Get("ETag")}, 200, "0123456789", "br"},
		{"/app.js", []string{"Accept-Encoding", "br", "Range", "bytes=10-"}, 416, "", ""},
		{"/app.js", []string{"Accept-Encoding", "br", "If-Match", `"x"`}, 412, "", ""},
		{"/app.js", []string{"Accept-Encoding", "zstd"}, 200, "zst", "zstd"},
		{"/noext", []string{"Accept-Encoding", "gzip"}, 200, "gzipped page", "gzip"},
		{"/", []string{"Accept-Encoding", "br"}, 200, "brotli home", "br"},
		{"/some/page", []string{"Accept-Encoding", "br"}, 200, "brotli home", "br"},
		{"/only.txt", []string{"Accept-Encoding", "gzip"}, 404, "", ""},
		{"/only.txt.gz", nil, 200, "no plain form", ""}, // asked for by its own name it is a file like any
		{"/alone.txt", []string{"Accept-Encoding", "gzip, br"}, 200, "alone", ""},
		{"/dir.js", []string{"Accept-Encoding", "br"}, 200, "x", ""},
		{"/out.js", []string{"Accept-Encoding", "br"}, 200, "x", ""}, // its sibling leads out of the root
	} {
		a := get(t, g.url()+c.path, c.header...)
		if a.status != c.status || c.body != "" && a.body != c.body || a.status != 412 && a.header.Get("Content-Encoding") != c.coding {
			t.Errorf("%s %v: %d %q %v", c.path, c.header, a.status, a.body, a.header)
		}
	}
	if a := get(t, g.url()+"/noext", "Accept-Encoding", "gzip"); !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("sniffed: %v", a.header)
	}
	if a := get(t, g.url()+"/alone.txt"); a.header.Get("Vary") != "" {
		t.Errorf("nothing varies: %v", a.header)
	}
	if a := do(t, request(t, http.MethodHead, u, "Accept-Encoding", "br")); a.header.Get("Content-Length") != "10" || a.header.Get("Content-Encoding") != "br" {
		t.Errorf("HEAD: %v", a.header)
	}
}

// A sibling that comes or goes is noticed without a reload.
func TestPrecompressedLater(t *testing.T) {
	root := write(t, map[string]string{"a.css": "plain"})
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: root}}}})
	body := func() string { return get(t, g.url()+"/a.css", "Accept-Encoding", "gzip").body }
	if b := body(); b != "plain" {
		t.Error(b)
	}
	if err := os.WriteFile(filepath.Join(root, "a.css.gz"), []byte("gz"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new sibling", func() bool { return body() == "gz" })
	if err := os.Remove(filepath.Join(root, "a.css.gz")); err != nil {
		t.Fatal(err)
	}
	if b := body(); b != "plain" {
		t.Error(b)
	}
}

func TestCacheRules(t *testing.T) {
	root := write(t, map[string]string{"index.html": "home", "assets/app-1a2b.js": "js", "assets/page.html": "page", "other.txt": "x"})
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: root, SPA: true, Cache: []CacheRule{
		{Match: "*.html", Control: "no-cache"},
		{Match: "assets/", Control: "public, max-age=31536000, immutable"},
	}}}}})
	for path, want := range map[string]string{
		"/": "no-cache", "/deep/link": "no-cache", "/assets/page.html": "no-cache",
		"/assets/app-1a2b.js": "public, max-age=31536000, immutable", "/other.txt": "",
	} {
		if a := get(t, g.url()+path); a.status != 200 || a.header.Get("Cache-Control") != want {
			t.Errorf("%s: %d %q, want %q", path, a.status, a.header.Get("Cache-Control"), want)
		}
	}
	if a := get(t, g.url()+"/assets/none.js"); a.status != 404 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("not there: %d %v", a.status, a.header)
	}
	if a := get(t, g.url()+"/assets/app-1a2b.js", "Range", "bytes=9-"); a.status != 416 || a.header.Get("Cache-Control") != "" {
		t.Errorf("out of range: %d %v", a.status, a.header)
	}
	for _, bad := range []CacheRule{{"", "x"}, {"a/b.js", "x"}, {"[", "x"}, {"*.js", ""}, {"*.js", "x\r\ny"}} {
		if f := Validate([]Listener{{Address: ":0", Files: &Files{Root: root, Cache: []CacheRule{bad}}}}, nil); len(f) != 1 {
			t.Errorf("%q: %v", bad, f)
		}
	}
}
