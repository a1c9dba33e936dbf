package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func fileSite(t *testing.T) (g *Gateway, root string) {
	t.Helper()
	outer := write(t, map[string]string{
		"secret.txt":                         "secret",
		"public/index.html":                  "<h1>home",
		"public/hello.txt":                   "hello file",
		"public/a b/ü.txt":                   "odd name",
		"public/sub/index.html":              "<h1>sub",
		"public/sub/app.js":                  "let x",
		"public/bare/file.txt":               "in a bare directory",
		"public/.env":                        "secret",
		"public/.git/config":                 "secret",
		"public/sub/.hidden/x":               "secret",
		"public/.well-known/security.txt":    "contact",
		"public/.well-known/.secret":         "secret",
		"public/back\\slash.txt":             "secret, in a way",
		"public-but-not-really/secret.txt":   "secret",
		"public/assets/nested-as-route.txt":  "nested",
		"public/name-with..dots/and...x.txt": "dots",
	})
	root = filepath.Join(outer, "public")
	for link, target := range map[string]string{
		"escape.txt": "../secret.txt", "absolute.txt": filepath.Join(outer, "secret.txt"), "up": "..",
		"inside.txt": "hello.txt", "loop": "loop", "sub/out": "../../public-but-not-really",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, ".env"), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, Config{Listeners: []Listener{
		{Address: "127.0.0.1:0", Files: &Files{Root: root}},
		{Address: "127.0.0.1:0", Routes: []Route{
			{Path: "/assets/", Files: &Files{Root: root}},
			{Path: "/app/", Files: &Files{Root: root, SPA: true}},
		}},
	}}), root
}

func TestFiles(t *testing.T) {
	g, _ := fileSite(t)
	plain, routed := g.url(), "http://"+g.Addresses()[1].String()
	for _, c := range []struct {
		url    string
		status int
		want   string // body, or Location
	}{
		{plain + "/", 200, "<h1>home"},
		{plain + "/index.html", 200, "<h1>home"},
		{plain + "/hello.txt", 200, "hello file"},
		{plain + "//hello.txt", 200, "hello file"},
		{plain + "/hello.txt?query", 200, "hello file"},
		{plain + "/inside.txt", 200, "hello file"},
		{plain + "/a%20b/%C3%BC.txt", 200, "odd name"},
		{plain + "/name-with..dots/and...x.txt", 200, "dots"},
		{plain + "/.well-known/security.txt", 200, "contact"},
		{plain + "/sub/", 200, "<h1>sub"},
		{plain + "/sub?x=1", 301, "./sub/?x=1"},
		{plain + "/sub/app.js", 200, "let x"},
		{plain + "/hello.txt/", 404, ""},
		{plain + "/hello.txt/x", 404, ""},
		{plain + "/bare/", 404, ""}, // never a listing
		{plain + "/bare", 404, ""},
		{plain + "/none", 404, ""},
		{plain + "/" + strings.Repeat("x", 5000), 404, ""},
		{routed + "/assets/hello.txt", 200, "hello file"},
		{routed + "/assets/assets/nested-as-route.txt", 200, "nested"},
		{routed + "/assets/", 200, "<h1>home"},
		{routed + "/assets", 301, "./assets/"},
		{routed + "/assetshello.txt", 404, ""},
		{routed + "/app/hello.txt", 200, "hello file"},
		{routed + "/app/some/page", 200, "<h1>home"},
		{routed + "/app/sub/other", 200, "<h1>home"},
		{routed + "/app/bare/", 200, "<h1>home"},
		{routed + "/app/missing.js", 404, ""},
		{routed + "/app/.env", 404, ""},
		{routed + "/app/page/.env", 404, ""},
	} {
		a := get(t, c.url)
		got := a.body
		if a.status == 301 {
			got = a.header.Get("Location")
		}
		if a.status != c.status || c.want != "" && got != c.want {
			t.Errorf("%s: %d %q, want %d %q", c.url, a.status, got, c.status, c.want)
		}
	}
	if a := get(t, routed+"/app/users/jane.doe", "Accept", "text/html"); a.status != 200 || a.body != "<h1>home" {
		t.Errorf("a page with a dot: %d %s", a.status, a.body)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		if a := do(t, request(t, method, plain+"/hello.txt")); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, a.status)
		}
	}
	if a := do(t, request(t, http.MethodHead, plain+"/hello.txt")); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "10" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
}

func TestNoWayOutOfTheRoot(t *testing.T) {
	g, _ := fileSite(t)
	for i, prefix := range []string{"", "/assets", "/app"} {
		address := g.Addresses()[min(i, 1)].String()
		for _, path := range []string{
			"/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt", "/..%5csecret.txt", `/..\secret.txt`,
			"/sub/../../secret.txt", "/sub/%2e%2e/%2e%2e/secret.txt", "/./../secret.txt", "//../secret.txt", "/..//secret.txt", "/..;/secret.txt",
			"/%252e%252e/secret.txt", "/..%252fsecret.txt", "/%c0%ae%c0%ae/secret.txt", "/%uff0e%uff0e/secret.txt", "/....//secret.txt", "/.../secret.txt",
			"/../public-but-not-really/secret.txt", "/escape.txt", "/absolute.txt", "/up/secret.txt", "/up/public/hello.txt/../../secret.txt", "/sub/out/secret.txt",
			"/hello.txt%00", "/hello.txt%00.html", "/%00", "/loop", "/fifo", "/.env", "/.git/config", "/.git/", "/sub/.hidden/x", "/%2eenv", "/.well-known/.secret",
			"/back%5Cslash.txt", "/.ENV", "/C:/secret.txt", "/proc/self/environ", "/dev/null", "file:///etc/passwd", "/~/secret.txt", "/hello.txt/../../secret.txt",
		} {
			full := prefix + path
			if strings.HasPrefix(path, "file:") {
				full = path
			}
			got := raw(t, address, "GET "+full+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			status := strings.TrimPrefix(got, "HTTP/1.1 ")[:3]
			page := prefix == "/app" && strings.Contains(got, "<h1>home") // an SPA's answer to what is not there
			if strings.Contains(got, "\r\n\r\nsecret") || status != "400" && status != "404" && !page {
				t.Errorf("%s: %s", full, got)
			}
		}
	}
}

func TestConditionsAndRanges(t *testing.T) {
	g, root := fileSite(t)
	u := g.url() + "/hello.txt"
	first := get(t, u)
	etag, modified := first.header.Get("ETag"), first.header.Get("Last-Modified")
	if etag == "" || modified == "" || first.header.Get("Accept-Ranges") != "bytes" || !strings.HasPrefix(first.header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v", first.header)
	}
	for _, c := range []struct {
		header []string
		status int
		body   string
		ranged string
	}{
		{[]string{"If-None-Match", etag}, 304, "", ""},
		{[]string{"If-None-Match", `"x", W/` + etag}, 304, "", ""},
		{[]string{"If-None-Match", `"x"`, "If-Modified-Since", modified}, 200, "hello file", ""},
		{[]string{"If-Modified-Since", modified}, 304, "", ""},
		{[]string{"If-Match", `"x"`}, 412, "", ""},
		{[]string{"Range", "bytes=0-4"}, 206, "hello", "bytes 0-4/10"},
		{[]string{"Range", "bytes=6-"}, 206, "file", "bytes 6-9/10"},
		{[]string{"Range", "bytes=-4"}, 206, "file", "bytes 6-9/10"},
		{[]string{"Range", "bytes=-100"}, 206, "hello file", "bytes 0-9/10"},
		{[]string{"Range", "bytes=5-100"}, 206, " file", "bytes 5-9/10"},
		{[]string{"Range", "bytes=10-"}, 416, "", "bytes */10"},
		{[]string{"Range", "bytes=4-2"}, 416, "", ""},
		{[]string{"Range", "lines=1-2"}, 200, "hello file", ""}, // other units are ignored
		{[]string{"Range", "bytes"}, 200, "hello file", ""},
		{[]string{"Range", "BYTES=0-0"}, 206, "h", "bytes 0-0/10"}, // units are names without case
		{[]string{"Range", "bytes=-1"}, 206, "e", "bytes 9-9/10"},
		{[]string{"Range", "bytes=-0"}, 416, "", "bytes */10"},
		{[]string{"Range", "bytes=9-9, 100-200"}, 206, "e", "bytes 9-9/10"}, // what can be had of several
		{[]string{"Range", "bytes=0-18446744073709551615"}, 416, "", ""},
		{[]string{"Range", "bytes=a-b"}, 416, "", ""},
		{[]string{"Range", "bytes=0-9,0-9,0-9"}, 200, "hello file", ""}, // more than the whole
		{[]string{"Range", "bytes=0-4", "If-Range", "W/" + etag}, 200, "hello file", ""},
		{[]string{"Range", "bytes=0-4", "If-Range", modified}, 206, "hello", "bytes 0-4/10"},
		{[]string{"Range", "bytes=0-4", "If-None-Match", etag}, 304, "", ""},
		{[]string{"Range", "bytes=0-4", "If-Match", `"x"`}, 412, "", ""},
		{[]string{"If-Match", "*", "If-Unmodified-Since", modified}, 200, "hello file", ""},
		{[]string{"If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT"}, 412, "", ""},
		{[]string{"If-Match", etag, "If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT"}, 200, "hello file", ""}, // the stronger one counts
		{[]string{"If-None-Match", "*"}, 304, "", ""},
		{[]string{"If-Modified-Since", "yesterday"}, 200, "hello file", ""},
		{[]string{"Range", "bytes=0-4", "If-Range", etag}, 206, "hello", "bytes 0-4/10"},
		{[]string{"Range", "bytes=0-4", "If-Range", `"x"`}, 200, "hello file", ""},
	} {
		a := get(t, u, c.header...)
		if a.status != c.status || c.body != "" && a.body != c.body || c.ranged != "" && a.header.Get("Content-Range") != c.ranged {
			t.Errorf("%v: %d %q %q", c.header, a.status, a.body, a.header.Get("Content-Range"))
		}
	}
	if a := get(t, u, "Range", "bytes=0-1,8-9"); a.status != 206 || !strings.HasPrefix(a.header.Get("Content-Type"), "multipart/byteranges") {
		t.Errorf("several ranges: %d %v", a.status, a.header)
	}
	if a := do(t, request(t, http.MethodHead, u, "Range", "bytes=0-4")); a.status != 200 || a.header.Get("Content-Length") != "10" {
		t.Errorf("a range of a HEAD: %d %v", a.status, a.header)
	}
	if err := os.WriteFile(filepath.Join(root, "hello.txt"), []byte("HELLO FILE, longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if a := get(t, u, "If-None-Match", etag); a.status != 200 || a.header.Get("ETag") == etag {
		t.Errorf("changed file: %d %s", a.status, a.header.Get("ETag"))
	}
}

// A deployment that replaces the whole directory is seen without a reload.
func TestRootIsReplaced(t *testing.T) {
	g, root := fileSite(t)
	get(t, g.url()+"/hello.txt")
	if err := os.Rename(root, root+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "hello.txt"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new file", func() bool { return get(t, g.url()+"/hello.txt").body == "new" })
}

// A file that does not fit into the socket's buffers comes whole, twice on one connection, and is counted to
// the byte.
func TestLongFile(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	content = append(content, "the end"...)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "long.bin"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	g := start(t, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: root}}}})
	c := dial(t, g.address())
	read := int64(0)
	in := bufio.NewReader(io.TeeReader(c, counter(func(n int) { read += int64(n) })))
	for range 2 {
		if _, err := io.WriteString(c, "GET /long.bin HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(content), err)
		}
	}
	eventually(t, "all bytes are counted", func() bool {
		all := g.sessions.infos()
		return len(all) == 1 && all[0].BytesOut == read
	})
}

// counter is a Writer that counts.
type counter func(n int)

func (c counter) Write(p []byte) (int, error) {
	c(len(p))
	return len(p), nil
}
