package gateway

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// fetch is what every benchmark here does: GET a page of 1 KiB over
// connections that are kept.
func fetch(b *testing.B, url, cookie string) {
	b.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer tr.CloseIdleConnections()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
			if cookie != "" {
				req.Header.Set("Cookie", cookie)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK {
				b.Errorf("%d %v", res.StatusCode, err)
				return
			}
		}
	})
}

var page1K = strings.Repeat("x", 1024)

func pageUpstream(b *testing.B) *httptest.Server {
	return upstream(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page1K) })
}

// BenchmarkProxy compares a proxied page, with and without a session, with
// the same page through a bare httputil.ReverseProxy.
func BenchmarkProxy(b *testing.B) {
	up := pageUpstream(b)
	b.Run("bare", func(b *testing.B) {
		target, err := url.Parse(up.URL)
		if err != nil {
			b.Fatal(err)
		}
		tr := &http.Transport{MaxIdleConnsPerHost: 64}
		defer tr.CloseIdleConnections()
		s := httptest.NewServer(&httputil.ReverseProxy{
			Transport: tr,
			Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(target); pr.SetXForwarded() },
		})
		defer s.Close()
		fetch(b, s.URL, "")
	})
	b.Run("gateway", func(b *testing.B) {
		g := start(b, toUpstream(Upstream{Targets: []string{up.URL}}))
		fetch(b, g.url(), "")
	})
	b.Run("session", func(b *testing.B) {
		f, err := sessionstore.New(redistest.Start(b).Client(b), sessionstore.Config{})
		if err != nil {
			b.Fatal(err)
		}
		store, err := sessionstore.NewStore(f, sessionstore.StoreConfig{Cookie: "tandem"})
		if err != nil {
			b.Fatal(err)
		}
		s, err := f.Login(b.Context(), nil, sessionstore.Login{UserID: "7", UserName: "ada"})
		if err != nil {
			b.Fatal(err)
		}
		cfg := toUpstream(Upstream{Targets: []string{up.URL}, Login: LoginRequired})
		cfg.Store, cfg.Cookie = store, "tandem"
		fetch(b, start(b, cfg).url(), "tandem="+s.ID())
	})
}

// BenchmarkFiles compares a file of 1 KiB and one of 100 KiB with a bare
// http.FileServer.
func BenchmarkFiles(b *testing.B) {
	root := write(b, map[string]string{"1k": page1K, "100k": strings.Repeat(page1K, 100)})
	bare := httptest.NewServer(http.FileServer(http.Dir(root)))
	defer bare.Close()
	g := start(b, Config{Listeners: []Listener{{Address: "127.0.0.1:0", Files: &Files{Root: root}}}})
	for _, name := range []string{"1k", "100k"} {
		b.Run("bare/"+name, func(b *testing.B) { fetch(b, bare.URL+"/"+name, "") })
		b.Run("gateway/"+name, func(b *testing.B) { fetch(b, g.url()+"/"+name, "") })
	}
}
