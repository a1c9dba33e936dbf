package storetest

import (
	"net/http"
	"time"
)

func checkCookieAttributes(t *trial) {
	b := t.browser()
	p := b.open()
	p.mustLoad()
	p.set("mark", "kept")
	p.mustSave()
	c := p.leave().cookieSet(t.cookie)
	switch {
	case c == nil:
		t.broken("there is no cookie")
	case !c.HttpOnly:
		t.broken("the cookie is not HttpOnly")
	case c.SameSite != http.SameSiteLaxMode && c.SameSite != http.SameSiteStrictMode:
		t.broken("the cookie is neither SameSite Lax nor Strict")
	case !c.Secure:
		t.broken("the cookie is not Secure over TLS")
	case c.Path != "/":
		t.broken("the path of the cookie is not /")
	}
}

func checkBrowserSession(t *trial) {
	b := t.browser()
	p := b.open()
	p.mustLoad()
	p.maxAge(0)
	p.set("mark", "kept")
	p.mustSave()
	c := p.leave().cookieSet(t.cookie)
	if c == nil || c.Value == "" || b.get("mark") != "kept" {
		t.broken("the session is not there on the next page")
	}
	if c.MaxAge != 0 || !c.Expires.IsZero() {
		t.broken("the cookie outlives the browser")
	}
}

func checkRememberMe(t *trial) {
	const (
		year   = 365 * 24 * 3600 // seconds
		leeway = time.Hour
	)
	b := t.browser()
	p := b.open()
	p.mustLoad()
	p.maxAge(year)
	p.set("mark", "kept")
	p.mustSave()
	if c := p.leave().cookieSet(t.cookie); c == nil || life(c) < year*time.Second-leeway {
		t.broken("the cookie does not get the life that the application chose")
	}
	p = b.open()
	p.mustLoad()
	p.set("more", "of it")
	p.mustSave()
	if c := p.leave().cookieSet(t.cookie); c != nil && life(c) < year*time.Second-leeway {
		t.broken("the next save sets the cookie for the default life")
	}
}

// life is how long a browser keeps a cookie; zero: until it closes.
func life(c *http.Cookie) time.Duration {
	if c.MaxAge != 0 || c.Expires.IsZero() {
		return time.Duration(c.MaxAge) * time.Second
	}
	return time.Until(c.Expires)
}
