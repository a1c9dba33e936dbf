package storetest

import (
	"cmp"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/sessions"
)

// site is an application of the store, on one replica or two.
type site struct {
	harness    Harness
	cookie     string
	home, away *app // away is nil without a second replica
	transport  http.RoundTripper
	cut        bool // the backend is out of reach
}

func newSite(h Harness) *site {
	if h.Store == nil {
		panic("storetest: a harness needs a store")
	}
	s := &site{harness: h, cookie: cmp.Or(h.Cookie, "session")}
	s.home = newApp(h.Store, s.cookie)
	if h.Replica != nil {
		s.away = newApp(h.Replica, s.cookie)
	}
	s.transport = s.home.server.Client().Transport // trusts both: they have one certificate
	return s
}

func (s *site) close() {
	s.home.server.Close()
	if s.away != nil {
		s.away.server.Close()
	}
}

// app is one replica: its pages do what the trial tells them to.
type app struct {
	store  sessions.Store
	cookie string
	server *httptest.Server
	url    *url.URL

	mu       sync.Mutex
	expected map[string]*page // guarded by mu; by path
	count    int              // guarded by mu
}

func newApp(store sessions.Store, cookie string) *app {
	a := &app{store: store, cookie: cookie, expected: map[string]*page{}}
	a.server = httptest.NewUnstartedServer(a)
	a.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are part of it
	a.server.StartTLS()
	a.url, _ = url.Parse(a.server.URL)
	return a
}

// expect makes a path lead to p.
func (a *app) expect(p *page) (path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	path = "/" + strconv.Itoa(a.count)
	a.expected[path] = p
	return path
}

// ServeHTTP is the page's handler: it does one step after the other.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	p := a.expected[r.URL.Path]
	delete(a.expected, r.URL.Path)
	a.mu.Unlock()
	if p == nil {
		http.NotFound(w, r)
		return
	}
	p.w, p.r = w, r
	close(p.arrived)
	for step := range p.steps {
		step()
	}
}

// page is one request: on its way, or stopped between two steps of its
// handler. What it holds of the handler is touched by its steps only.
type page struct {
	t       *trial
	at      *app
	w       http.ResponseWriter
	r       *http.Request
	session *sessions.Session
	loadErr error
	errs    []error // all that the store has returned

	arrived chan struct{} // closed: the handler runs, w and r are set
	steps   chan func()   // what the handler does next; closed: it returns
	left    bool
	hangUp  context.CancelFunc
	over    chan struct{} // closed: answer is there
	answer  answer
}

// answer is what the browser got.
type answer struct {
	header http.Header
	body   string
	err    error
}

// open sends a request. Its handler has loaded the session when open returns.
func (b *browser) open() *page {
	p := b.send()
	p.load()
	return p
}

// openAs is open with a cookie that no browser could send.
func (b *browser) openAs(cookie string) *page {
	p := b.send()
	p.do(func() { p.r.Header.Set("Cookie", b.t.cookie+"="+cookie) })
	p.load()
	return p
}

// send sends a request. Its handler runs when send returns.
func (b *browser) send() *page {
	p := &page{
		t: b.t, at: b.at, arrived: make(chan struct{}), steps: make(chan func()), over: make(chan struct{}),
	}
	var ctx context.Context
	ctx, p.hangUp = context.WithCancel(b.t.ctx)
	b.t.mu.Lock()
	b.t.pages = append(b.t.pages, p)
	b.t.mu.Unlock()
	target := b.at.server.URL + b.at.expect(p)
	go func() {
		defer close(p.over)
		p.answer = b.fetch(ctx, target)
	}()
	select {
	case <-p.arrived:
	case <-p.over:
		b.t.broken("a page did not answer: %v", p.answer.err)
	}
	return p
}

// load has the handler load the session.
func (p *page) load() {
	p.do(func() {
		p.session, p.loadErr = p.at.store.Get(p.r, p.t.cookie)
		p.note(p.loadErr)
	})
	if p.session == nil {
		p.t.broken("Get returned no session (error: %v)", p.loadErr)
	}
}

func (b *browser) fetch(ctx context.Context, target string) answer {
	client := &http.Client{Transport: b.t.transport, Jar: b.jar}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return answer{err: err}
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.Header, string(body), err}
}

// do has the handler take one step, and returns after it.
func (p *page) do(step func()) {
	done := make(chan any, 1)
	select {
	case p.steps <- func() {
		defer func() { done <- recover() }()
		step()
	}:
	case <-p.t.ctx.Done():
		p.t.broken("nothing happened for %v", patience)
	}
	select {
	case thrown := <-done:
		if f, ok := thrown.(finding); ok {
			panic(f)
		}
		if thrown != nil {
			p.t.broken("the store panicked: %v", thrown)
		}
	case <-p.t.ctx.Done():
		p.t.broken("the store did not return within %v", patience)
	}
}

// leave lets the handler return and gives what the browser got. Leaving again
// does nothing more.
func (p *page) leave() answer {
	if !p.left {
		p.left = true
		close(p.steps)
	}
	<-p.over // at the end of the trial's context at the latest
	p.hangUp()
	return p.answer
}

// abandon has the client go away, and returns when both sides know.
func (p *page) abandon() {
	p.hangUp()
	<-p.over
	p.do(func() {
		select {
		case <-p.r.Context().Done():
		case <-p.t.ctx.Done():
		}
	})
}

// note keeps an error of the store.
func (p *page) note(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// mustLoad ends the trial unless the session was loaded.
func (p *page) mustLoad() {
	if p.loadErr != nil {
		p.t.broken("cannot load a session: %v", p.loadErr)
	}
}

func (p *page) set(name string, value any) {
	p.do(func() { p.session.Values[name] = value })
}

func (p *page) delete(name string) {
	p.do(func() { delete(p.session.Values, name) })
}

func (p *page) get(name string) (value any) {
	p.do(func() { value = p.session.Values[name] })
	return value
}

func (p *page) id() (id string) {
	p.do(func() { id = p.session.ID })
	return id
}

func (p *page) maxAge(seconds int) {
	p.do(func() {
		if p.session.Options == nil {
			p.session.Options = &sessions.Options{Path: "/"}
		}
		p.session.Options.MaxAge = seconds
	})
}

func (p *page) save() (err error) {
	p.do(func() {
		err = p.session.Save(p.r, p.w)
		p.note(err)
	})
	return err
}

func (p *page) mustSave() {
	if err := p.save(); err != nil {
		p.t.broken("cannot save a session: %v", err)
	}
}

// cookieSet is the last of the answer's cookies of this name, which is the one
// that browsers keep; nil: it sets none.
func (a answer) cookieSet(name string) *http.Cookie {
	var last *http.Cookie
	for _, line := range a.header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == name {
			last = c
		}
	}
	return last
}

// shows reports where else than in the cookie of this name the answer shows
// a text.
func (a answer) shows(text, cookie string) (where string, ok bool) {
	for name, lines := range a.header {
		for _, line := range lines {
			if strings.Contains(line, text) && !(name == "Set-Cookie" && strings.HasPrefix(line, cookie+"=")) {
				return "the header " + name, true
			}
		}
	}
	return "the body", strings.Contains(a.body, text)
}
