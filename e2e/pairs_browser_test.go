package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// One page holds both sides; then the right one goes to a second device by its link: another browser profile, another
// replica, its own login. What is refused says why, and a side whose replica stops comes back by itself.
func TestPairPage(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "limits: {connections_per_session: 2}\ndrain: {spread: 1s}\n")
	s.visitor("ada")
	one := browser(t)
	look := func(name string, window context.Context) {
		for _, scheme := range []string{"light", "dark"} {
			step(t, window, scheme, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
				_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
				})
				return err
			}))
			screenshot(t, window, name+"-"+scheme)
		}
		step(t, window, "narrow", chromedp.EmulateViewport(360, 780))
		screenshot(t, window, name+"-narrow")
		step(t, window, "wide", chromedp.EmulateViewport(1200, 900))
	}
	const left, right = `[data-side=left] `, `[data-side=right] `

	step(t, one, "nobody is logged in", chromedp.Navigate(s.a.url+"/pairs/tea"), shows(left+".notice", "log in"), shows(right+".pill", "Refused"))
	look("pair-refused", one)
	loginFrom(t, one, left+".notice a", right+".pill", "Paired")
	step(t, one, "paired", shows(left+".pill", "Paired"))
	step(t, one, "both sides in one page", chromedp.SendKeys("#left-message", "milk?\r"), shows(left+".log", " | 0 | milk?"),
		chromedp.SendKeys("#right-message", "no, thanks\r"), shows(right+".log", " | 1 | no, thanks"))
	look("pair-both", one)
	step(t, one, "hand a side over", chromedp.Click(right+"summary"), shows(right+".pill", "Not connected"), shows(left+".pill", "Waiting"))
	link := pairLink(t, one, right)
	if link != s.a.url+"/pairs/tea?side=right" {
		t.Errorf("the link is %s", link)
	}
	step(t, one, "the code is there", chromedp.Poll[chromedp.Void](`document.querySelector("[data-side=right] .qr").naturalWidth > 0`))
	look("pair-invite", one)

	// The other device is nobody at first. Its browser reaches the other replica at the same address, as behind a balancer.
	two := profile(t, one)
	step(t, two, "scan", chromedp.Navigate(strings.Replace(link, s.a.url, s.b.url, 1)), shows(right+".notice", "log in"))
	loginFrom(t, two, right+".notice a", right+".pill", "Paired")
	step(t, two, "a message", chromedp.SendKeys("#right-message", "sugar?\r"), shows(right+".log", " | 2 | sugar?"))
	step(t, one, "the other is paired", shows(left+".pill", "Paired"), chromedp.SendKeys("#left-message", "two\r"), shows(left+".log", " | 3 | two"))
	look("pair-second", two)
	if got := pairLink(t, two, `[data-elsewhere=left] `); got != s.b.url+"/pairs/tea?side=left" {
		t.Errorf("the link back is %s", got)
	}

	step(t, one, "a taken side", chromedp.Click(right+"summary"), shows(right+".notice", "Somebody else holds the right side"))
	third := window(t, one)
	step(t, third, "one connection too many", chromedp.Navigate(s.a.url+"/pairs/other"),
		chromedp.Poll[chromedp.Void](`[...document.querySelectorAll(".side .notice")].some(n => n.textContent.includes("too many"))`))
	step(t, third, "it comes when there is room", chromedp.Navigate("about:blank"))

	s.b.signal(15)
	step(t, two, "a replica that stops", chromedp.Poll[chromedp.Void](`/Trying again/.test(document.querySelector("[data-side=right] .notice").textContent)`))
	step(t, one, "the other hears of it", shows(left+".pill", "Waiting"), shows(left+".log", "The right side left."))
	look("pair-away", two)
}

// loginFrom logs ada in where a link leads to, and waits until the page she comes back to shows want.
func loginFrom(t *testing.T, window context.Context, link, selector, want string) {
	t.Helper()
	step(t, window, "go to the login", chromedp.Click(link))
	arrives(t, window, `!!document.querySelector("#username")`)
	step(t, window, "log in", chromedp.SendKeys("#username", "ada"), chromedp.SendKeys("#password", password), chromedp.Click("#submit"))
	arrives(t, window, `(document.querySelector(`+quote(selector)+`)?.textContent ?? "").includes(`+quote(want)+`)`)
}

// arrives waits until a page is there for which the expression holds. On the way there none may be.
func arrives(t *testing.T, window context.Context, expression string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		is, err := chromedp.Run(window, chromedp.Evaluate[bool](expression))
		if err == nil && !is {
			err = errors.New(expression)
		}
		return err
	})
}

// pairLink is the address that an invitation shows.
func pairLink(t *testing.T, window context.Context, scope string) string {
	t.Helper()
	link, err := chromedp.Run(window, chromedp.Evaluate[string](`document.querySelector(`+quote(scope+"[data-link]")+`).textContent`))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// profile opens a window that shares nothing with the others: as on another device.
func profile(t *testing.T, parent context.Context) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// The QR code leads to where the browser sees the page, also when a proxy in front hides scheme and host; nobody else
// can have it lead elsewhere.
func TestPairQR(t *testing.T) {
	t.Parallel()
	s := startPairSite(t, "")
	code := func(path string, header ...string) answer {
		p := newPerson(t)
		req := p.request(http.MethodGet, s.a.url+path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		return p.do(req)
	}
	const path = "/pairs/tea/qr.svg?side=right"
	plain := code(path)
	if plain.status != http.StatusOK || plain.header.Get("Content-Type") != "image/svg+xml" || !strings.HasPrefix(plain.body, "<svg") {
		t.Fatalf("%d %v", plain.status, plain.header)
	}
	own := code(path, "Sec-Fetch-Site", "same-origin", "Referer", s.a.url+"/pairs/tea")
	behind := code(path, "Sec-Fetch-Site", "same-origin", "Referer", "https://tandem.example/pairs/tea")
	foreign := code(path, "Sec-Fetch-Site", "cross-site", "Referer", "https://evil.example/")
	other := code("/pairs/tea/qr.svg?side=left")
	if own.body != plain.body || foreign.body != plain.body || behind.body == plain.body || other.body == plain.body {
		t.Error("a code for the wrong address")
	}
	for _, bad := range []string{"/pairs/tea/qr.svg?side=middle", "/pairs/" + url.PathEscape("a b") + "/qr.svg", "/pairs/tea?side=middle"} {
		if got := code(bad); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, got.status)
		}
	}
}
