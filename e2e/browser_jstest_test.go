package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// The JavaScript client's own tests, in the engine it is for. `node --test webapp/jstest/` runs the same files.
func TestJavaScript(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../webapp/jstest/*.test.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	query := url.Values{}
	for _, f := range files {
		query.Add("file", filepath.Base(f))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if filepath.Ext(r.URL.Path) == ".mjs" {
			w.Header().Set("Content-Type", "text/javascript") // not in every machine's table
		}
		http.FileServer(http.Dir("../webapp")).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	page := browser(t)
	step(t, page, "open the tests", chromedp.Navigate(server.URL+"/jstest/chromium/?"+query.Encode()),
		chromedp.Poll[chromedp.Void](`"results" in globalThis`))
	ctx, cancel := context.WithTimeout(page, time.Minute)
	defer cancel()
	results, err := chromedp.Run(ctx, chromedp.Evaluate[[]struct{ File, Name, Error string }](`results`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]bool{}
	for _, r := range results {
		ran[r.File] = true
		t.Run(r.File+"/"+r.Name, func(t *testing.T) {
			if r.Error != "" {
				t.Error(r.Error)
			}
		})
	}
	if len(ran) != len(files) {
		t.Errorf("tests ran in %d files of %d", len(ran), len(files))
	}
}
