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

	"github.com/seed-6230208e/tandem/internal/redistest"
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

// Two windows, one document: what one writes the other shows, the name changed
// over the socket is on the page after a reload, and a logout in one window ends the other.
func TestBrowser(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	r := startReplica(t, settings{redis: redis.URL()})
	one := browser(t)

	step(t, one, "the home page", chromedp.Navigate(r.url+"/"), chromedp.WaitVisible("#login-link"))
	screenshot(t, one, "home")
	step(t, one, "register", chromedp.Navigate(r.url+"/register"), chromedp.WaitVisible("#username"),
		chromedp.SendKeys("#username", "ada"), chromedp.SendKeys("#password", password))
	screenshot(t, one, "register")
	step(t, one, "registered", chromedp.Click("#submit"), chromedp.WaitVisible("#whoami"), shows("#whoami", "ada"))

	two := window(t, one)
	for name, w := range map[string]context.Context{"one": one, "two": two} {
		step(t, w, "open the document in window "+name, chromedp.Navigate(r.url+"/documents/plans"), shows("#status", "Live"))
	}
	step(t, one, "both present", chromedp.Poll[chromedp.Void](`document.querySelectorAll("#presence li").length === 2`))

	step(t, one, "write a line", chromedp.SendKeys("#new-line", "Buy brass cogs\r"), shows("#lines", ""))
	for name, w := range map[string]context.Context{"one": one, "two": two} {
		step(t, w, "the line in window "+name, chromedp.Poll[chromedp.Void](`[...document.querySelectorAll("#lines input")].some(i => i.value.includes("brass cogs"))`))
	}
	step(t, two, "answer", chromedp.SendKeys("#new-line", "Oil the mill\r"))
	step(t, one, "the answer", chromedp.Poll[chromedp.Void](`[...document.querySelectorAll("#lines input")].some(i => i.value.includes("Oil the mill"))`))

	step(t, two, "change the name over the socket", chromedp.SendKeys("#chat-name", "Countess\r"))
	step(t, one, "the other window hears it", shows("#chat-name", "Countess"))
	step(t, one, "a reload", chromedp.Navigate(r.url+"/documents/plans"), shows("#status", "Live"), shows("#chat-name", "Countess"),
		chromedp.Poll[chromedp.Void](`[...document.querySelectorAll("#lines input")].some(i => i.value.includes("brass cogs"))`))
	screenshot(t, one, "document")
	step(t, one, "my sessions", chromedp.Navigate(r.url+"/account"), shows("main", "ada"))
	screenshot(t, one, "account")
	step(t, one, "home shows the name", chromedp.Navigate(r.url+"/"), shows("main", "Countess"))
	screenshot(t, one, "home-in")

	step(t, one, "log out", chromedp.Click("#logout"), chromedp.WaitVisible("#login-link"))
	step(t, two, "the other window has ended", shows("#banner", "logged out"), shows("#status", "Disconnected"))
	screenshot(t, two, "ended")
}
