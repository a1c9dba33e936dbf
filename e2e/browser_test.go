package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browser starts Chromium and returns one window's context; more windows come from chromedp.NewContext on it.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		t.Fatal("no Chromium found: run `make deps`, or set CHROMIUM")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(1200, 900), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	return window(t, ctx)
}

// window opens a window: of a new browser on an allocator's context, of the same browser on another window's.
func window(t *testing.T, parent context.Context) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

type action = chromedp.Action[chromedp.Void]

// step runs actions in a window, with a limit.
func step(t *testing.T, window context.Context, what string, actions ...action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(window, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		screenshot(t, window, "failed")
		html, _ := chromedp.Run(window, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("%s: %v; the page says:\n%s", what, err, html)
	}
}

// screenshot keeps a picture of the window in $TANDEM_SCREENSHOTS, where that is set.
func screenshot(t *testing.T, window context.Context, name string) {
	t.Helper()
	dir := os.Getenv("TANDEM_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(window, 10*time.Second)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Logf("screenshot %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Log(err)
	}
}

// shows waits until the element's text or value contains want.
func shows(selector, want string) action {
	return chromedp.Poll[chromedp.Void](`(() => { const e = document.querySelector(` + quote(selector) + `); return !!e && ((e.innerText || "") + (e.value || "")).includes(` + quote(want) + `); })()`)
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
