package storetest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"sync"
)

// trial is one promise being checked. A page and what a browser does belong to
// one goroutine at a time.
type trial struct {
	*site
	ctx context.Context // ends the whole trial

	mu    sync.Mutex
	pages []*page // guarded by mu; all that were opened
}

// finding ends a trial; it is thrown with panic and caught by site.check.
type finding struct {
	verdict Verdict
	detail  string
}

// broken ends the trial: the promise does not hold.
func (t *trial) broken(format string, args ...any) {
	panic(finding{Broken, fmt.Sprintf(format, args...)})
}

// needs ends the trial unless the harness has what it takes.
func (t *trial) needs(has bool, what string) {
	if !has {
		panic(finding{NotApplicable, "the harness has no " + what})
	}
}

// hook ends the trial when a hook of the harness failed.
func (t *trial) hook(name string, err error) {
	if err != nil {
		t.broken("not checked, the harness failed: %s: %v", name, err)
	}
}

// check carries out one check and tells what it found.
func (s *site) check(ctx context.Context, c claim) (r Result) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := &trial{site: s, ctx: ctx}
	r.Promise = c.Promise
	defer func() {
		v := recover()
		f, ours := v.(finding)
		if v != nil && !ours {
			panic(v)
		}
		r.Verdict, r.Detail = f.verdict, f.detail
	}()
	defer t.finish()
	c.check(t)
	return r
}

// finish lets every handler return and gives the backend back.
func (t *trial) finish() {
	for _, p := range t.pages { // no goroutine opens any more
		p.leave()
	}
	if t.cut {
		t.setAvailable(true)
	}
}

// setAvailable is the harness's hook.
func (t *trial) setAvailable(available bool) {
	t.cut = !available
	t.hook("SetAvailable", t.harness.SetAvailable(available))
}

// raw is what the backend keeps under an ID, nil for nothing.
func (t *trial) raw(id string) []byte {
	b, err := t.harness.Raw(id)
	t.hook("Raw", err)
	return b
}

// corrupt makes what the backend keeps under an ID undecodable, and returns it.
func (t *trial) corrupt(id string) []byte {
	t.hook("Corrupt", t.harness.Corrupt(id))
	return t.raw(id)
}

// apps are the replicas, one or two.
func (t *trial) apps() []*app {
	if t.away == nil {
		return []*app{t.home}
	}
	return []*app{t.home, t.away}
}

// together runs fns at the same time. One that ends the trial does so after
// all have returned.
func (t *trial) together(fns ...func()) {
	thrown := make([]any, len(fns))
	var running sync.WaitGroup
	for i, fn := range fns {
		running.Go(func() {
			defer func() { thrown[i] = recover() }()
			fn()
		})
	}
	running.Wait()
	for _, v := range thrown {
		if v != nil {
			panic(v)
		}
	}
}

// browser visits pages and keeps cookies.
type browser struct {
	t   *trial
	at  *app // the replica that it is led to
	jar *cookiejar.Jar
}

// browser returns one without cookies.
func (t *trial) browser() *browser {
	jar, _ := cookiejar.New(nil) // never fails
	return &browser{t: t, at: t.home, jar: jar}
}

// browserWith returns one whose session cookie has this value.
func (t *trial) browserWith(cookie string) *browser {
	b := t.browser()
	b.jar.SetCookies(b.url(), []*http.Cookie{{Name: t.cookie, Value: cookie, Path: "/", Secure: true}})
	return b
}

// on is the same browser led to another replica. Cookies know no ports.
func (b *browser) on(a *app) *browser { return &browser{b.t, a, b.jar} }

func (b *browser) url() *url.URL { return b.at.url }

// cookie is the value of the session cookie that the browser has, or nothing.
func (b *browser) cookie() string {
	for _, c := range b.jar.Cookies(b.url()) {
		if c.Name == b.t.cookie {
			return c.Value
		}
	}
	return ""
}

// set is a page that sets one attribute.
func (b *browser) set(name string, value any) {
	p := b.open()
	p.mustLoad()
	p.set(name, value)
	p.mustSave()
	p.leave()
}

// get is a page that looks at one attribute; nil: it is not there, or the
// session could not be loaded.
func (b *browser) get(name string) any {
	p := b.open()
	defer p.leave()
	return p.get(name)
}

// logout is a page that ends the session.
func (b *browser) logout() answer {
	p := b.open()
	p.mustLoad()
	p.maxAge(-1)
	if err := p.save(); err != nil {
		b.t.broken("cannot log out: %v", err)
	}
	return p.leave()
}

// session starts a session with one attribute, mark, and returns its ID.
func (b *browser) session() (id string) {
	p := b.open()
	p.mustLoad()
	p.set("mark", "kept")
	p.mustSave()
	id = p.id()
	p.leave()
	if b.cookie() == "" {
		b.t.broken("a saved session set no cookie")
	}
	return id
}
