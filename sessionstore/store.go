package sessionstore

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/sessions"
)

// StoreConfig says in which cookie browsers carry the session ID.
type StoreConfig struct {
	// Cookie is the name of the session cookie. Empty means "tandem". With
	// the prefix __Host- browsers take it over TLS only, for this host only.
	Cookie string

	// Options are the cookie's attributes. A Path left empty is "/", a
	// SameSite left at zero is Lax, HttpOnly is always on, and Secure is on
	// where the request came over TLS (in the words of whoever set its URL's
	// scheme, too) or the name demands it. MaxAge is in
	// seconds; zero means until the browser closes; negative is an error.
	Options sessions.Options
}

// ErrNotLoaded refuses to save a gorilla session under an ID that the store
// did not load or give it.
var ErrNotLoaded = errors.New("session was not loaded by this store")

// saveTimeout bounds a save, in which the client's going away has no part.
const saveTimeout = 5 * time.Second

// Store is the gorilla face of a Factory: a [sessions.Store] whose bytes in
// Redis are redisstore's, but which takes no ID from a client that it did
// not issue, saves only what the handler changed, and never brings an ended
// session back. It is safe for concurrent use; as everywhere with gorilla,
// one request's sessions belong to one goroutine at a time.
type Store struct {
	factory *Factory         // fixed after construction
	cookie  string           // fixed
	options sessions.Options // fixed
	pages   pageTable
}

var _ sessions.Store = (*Store)(nil)

// NewStore checks cfg and returns a store over f.
func NewStore(f *Factory, cfg StoreConfig) (*Store, error) {
	if f == nil {
		return nil, errors.New("sessionstore: a store needs a factory")
	}
	if cfg.Cookie == "" {
		cfg.Cookie = "tandem"
	}
	if err := validCookie(cfg.Cookie, cfg.Options); err != nil {
		return nil, err
	}
	return &Store{factory: f, cookie: cfg.Cookie, options: cookieDefaults(cfg.Cookie, cfg.Options)}, nil
}

// Get returns the request's session in the cookie of this name, reading it
// from Redis the first time a request asks for it and only then.
//
// A client without a session, with an unknown, malformed or ended one, gets a
// new session and no error. When Redis cannot be reached or the value cannot
// be decoded, Get returns ErrUnavailable or ErrUndecodable together with an
// empty session that can never be saved.
func (st *Store) Get(r *http.Request, name string) (*sessions.Session, error) {
	gs, err := sessions.GetRegistry(r).Get(st, name)
	if err == nil {
		err = st.fill(gs)
	}
	return gs, err
}

// New is Get without the request's memory: each call reads Redis.
func (st *Store) New(r *http.Request, name string) (*sessions.Session, error) {
	gs, err := st.open(r, name)
	if err == nil {
		err = st.fill(gs)
	}
	return gs, err
}

// typedStore is the store of requests that have only asked for the typed
// session so far: it leaves gorilla's Values empty, until Get.
type typedStore struct{ *Store }

func (st typedStore) New(r *http.Request, name string) (*sessions.Session, error) {
	return st.open(r, name)
}

// fill puts the attributes into the gorilla session's Values, once.
func (st *Store) fill(gs *sessions.Session) error {
	p, ok := st.pages.get(gs)
	switch {
	case !ok:
		return nil // another store's
	case p.failed != nil:
		return p.failed
	case p.filled, p.session.IsNew():
		p.filled = true
		return nil
	}
	base, err := p.session.merged()
	if err == nil {
		gs.Values, err = st.factory.decodeValues(base)
	}
	if err != nil {
		p.failed = err
		return err
	}
	p.base, p.filled = base, true
	return nil
}

// open is New with empty Values.
func (st *Store) open(r *http.Request, name string) (*sessions.Session, error) {
	gs := sessions.NewSession(st, name)
	options := st.options
	gs.Options = &options
	gs.IsNew = true

	p := &page{age: options.MaxAge}
	st.pages.put(gs, p)
	p.presented, p.session, p.failed = st.load(r, name)
	switch {
	case p.failed == nil:
	case errors.Is(p.failed, ErrNotFound), errors.Is(p.failed, ErrEnded):
		p.absent, p.failed = p.failed, nil
		p.session = st.factory.New()
		return gs, nil
	default:
		return gs, p.failed
	}

	p.given, p.age = p.session.id, st.ageOf(p.session)
	options.MaxAge = p.age
	gs.ID, gs.IsNew = p.given, false
	return gs, nil
}

// load reads the session that the request's cookie claims.
func (st *Store) load(r *http.Request, name string) (presented string, s *Session, err error) {
	if len(r.CookiesNamed(name)) == 0 {
		return "", nil, ErrNotFound
	}
	// Load takes note of a malformed ID, which is empty here, too.
	presented, _ = idFromCookies(r, name)
	s, err = st.factory.Load(WithMeta(r.Context(), requestMeta(r)), presented)
	return presented, s, err
}

// Session returns the typed view of the request's session in the store's own
// cookie, sharing the one read of Get. Its error is ErrNotFound when the
// client has no session, also when there is no cookie, an *EndedError when
// it had one, or else that of [Factory.Load].
func (st *Store) Session(r *http.Request) (*Session, error) {
	gs, err := sessions.GetRegistry(r).Get(typedStore{st}, st.cookie)
	if err != nil {
		return nil, err
	}
	p, ok := st.pages.get(gs)
	if !ok {
		return nil, ErrNotLoaded // another store's session under our cookie's name
	}
	if p.session.IsNew() {
		return nil, p.absent
	}
	return p.session, nil
}

// Of returns the typed session behind a gorilla session that a Store made,
// or false; there is none after a failed load. What is set on either is
// saved by [Store.Save].
func Of(gs *sessions.Session) (*Session, bool) {
	st, ok := gs.Store().(interface {
		pageOf(*sessions.Session) (*page, bool)
	})
	if !ok {
		return nil, false
	}
	p, ok := st.pageOf(gs)
	if !ok || p.failed != nil {
		return nil, false
	}
	return p.session, true
}

// pageOf is a method, so that stores that embed a *Store have it too.
func (st *Store) pageOf(gs *sessions.Session) (*page, bool) { return st.pages.get(gs) }

// Save stores what the handler changed in gs.Values, and what was set on the
// typed session, by merging it into the newest state in Redis. The cookie is
// set when the client does not have the session's current ID or when it has
// a limited age (gs.Options.MaxAge, else that of [Session.Remember]), unless the handler has set or cleared it by itself.
//
// A new session without values is not stored. gs.Options.MaxAge below zero
// logs out: the session ends for all its holders and the cookie is cleared.
// A gs.ID that the handler emptied asks for a new ID. A session whose load
// failed is never saved: Save returns the load's error. One that ended
// meanwhile stays ended (ErrEnded), and no new one takes its place when its
// ID was only just replaced. Names under "tandem." cannot be changed
// (ErrReserved). The save goes on when the client goes away.
func (st *Store) Save(r *http.Request, w http.ResponseWriter, gs *sessions.Session) error {
	p, err := st.pageToSave(gs)
	if err != nil {
		return err
	}
	options := st.options
	if gs.Options != nil {
		options = *gs.Options
	}
	ctx := WithMeta(context.WithoutCancel(r.Context()), requestMeta(r))
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()

	if options.MaxAge < 0 {
		if err := p.logout(ctx, st.factory); err != nil {
			return err
		}
		st.clearCookie(w, r, gs.Name(), options)
		return nil
	}
	if err := p.save(ctx, gs); err != nil {
		return err
	}
	id := p.session.ID()
	if id == "" {
		return nil // nothing to keep, and so nothing for the client to carry
	}
	gs.ID, p.given = id, id
	if age := st.ageOf(p.session); options.MaxAge == p.age { // the handler has left it to the session
		options.MaxAge = age
	}
	if id == p.presented && options.MaxAge == 0 && p.age == 0 {
		return nil // browsers keep what they have
	}
	p.age = options.MaxAge
	if set, ok := cookieIn(w.Header(), gs.Name()); !ok || set == p.sent && set != "" {
		st.setCookie(w, r, id, gs.Name(), options)
		p.sent = id
	}
	return nil
}

// pageToSave finds what stands behind gs, or why it must not be saved.
func (st *Store) pageToSave(gs *sessions.Session) (*page, error) {
	p, ok := st.pages.get(gs)
	if !ok {
		if gs.ID != "" {
			return nil, ErrNotLoaded
		}
		// Made by hand, without a claim to any ID: a new session.
		p = &page{session: st.factory.New(), absent: ErrNotFound, age: st.options.MaxAge}
		st.pages.put(gs, p)
	}
	if p.failed != nil {
		return nil, p.failed
	}
	if gs.ID != "" && gs.ID != p.given {
		return nil, ErrNotLoaded
	}
	return p, nil
}

// requestMeta is what the list of a user's sessions tells about the client.
func requestMeta(r *http.Request) Meta {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	return Meta{UserAgent: r.UserAgent(), Address: address}
}
