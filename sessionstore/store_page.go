package sessionstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/gorilla/sessions"
)

// page is what stands behind a gorilla session. It belongs to the goroutine
// that serves the request.
type page struct {
	presented string   // well-formed ID of the request's cookie, or empty
	given     string   // ID that the store last put into the gorilla session
	sent      string   // ID that the store put into the response's cookie, or empty
	age       int      // MaxAge that the store last put into the gorilla session's options
	session   *Session // nil when failed is set
	absent    error    // why the session is new: ErrNotFound or ErrEnded
	failed    error    // why nothing is known and nothing may be saved

	// base is what gorilla's Values held when the handler got them or last
	// saved them, serialized: what differs from it the handler changed.
	base   string
	filled bool // gorilla's Values hold the attributes
}

// save brings the handler's changes of gs.Values into the typed session and
// saves that.
func (p *page) save(ctx context.Context, gs *sessions.Session) error {
	s := p.session
	if err := p.take(gs.Values); err != nil {
		return err
	}
	if s.IsNew() && len(s.keys()) == 0 {
		return nil
	}
	if late, err := p.late(ctx); err != nil || late {
		return cmp.Or(err, p.absent)
	}
	var err error
	switch {
	case gs.ID == "" && !s.IsNew():
		err = s.Rotate(ctx, nil)
	default:
		err = s.Save(ctx)
	}
	if err != nil {
		return err
	}
	base, err := s.f.cfg.Serializer.Serialize(gs)
	if err != nil {
		return fmt.Errorf("sessionstore: remember what was saved: %w", err)
	}
	p.base = string(base)
	return nil
}

// lateFor is how long after a rotation requests with the old ID count as
// having been under way.
const lateFor = 30 * time.Second

// late reports whether the client presented an ID that a rotation has just
// replaced. It is being told the new one in another response: the cookie of
// a new session would overwrite that, and log the user out.
func (p *page) late(ctx context.Context) (bool, error) {
	var ended *EndedError
	if p.session == nil || !p.session.IsNew() || !errors.As(p.absent, &ended) || ended.Reason != ReasonRotated {
		return false, nil
	}
	f := p.session.f
	left, err := f.rdb.PTTL(ctx, f.endKey(f.placeOf(p.presented).ref)).Result()
	if err != nil {
		return false, storeError(err)
	}
	return left > f.cfg.AbsoluteTimeout-lateFor, nil
}

// take applies to the typed session what the handler did to values since
// base. The typed session may have moved on by itself in the meantime: only
// the difference counts, so that neither undoes the other.
func (p *page) take(values map[any]any) error {
	base := map[any]any{}
	if p.base != "" {
		var err error
		if base, err = p.session.f.decodeValues(p.base); err != nil {
			return err
		}
	}
	target, err := p.session.values()
	if err != nil {
		return err
	}
	for key, value := range values {
		old, had := base[key]
		switch {
		case had && reflect.DeepEqual(old, value):
		case reservedKey(key):
			return fmt.Errorf("%w: %v", ErrReserved, key)
		default:
			target[key] = value
		}
	}
	// Handlers empty Values as a whole; reserved attributes outlive that.
	for key := range base {
		if _, kept := values[key]; !kept && !reservedKey(key) {
			delete(target, key)
		}
	}
	return p.session.assign(target)
}

// logout ends the session, which may have ended already. A client that
// presents an ID that a login has just replaced means the session that it has
// by now: to clear the cookie alone would leave that one alive.
func (p *page) logout(ctx context.Context, f *Factory) error {
	late, err := p.late(ctx)
	switch {
	case err != nil:
		return err
	case late, p.session == nil: // it cannot be decoded
		err = f.End(ctx, p.presented, ReasonLogout)
	case !p.session.IsNew():
		err = p.session.Destroy(ctx, ReasonLogout)
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrEnded) {
		return nil
	}
	return err
}

// pageTable finds the page behind a gorilla session. It cannot hang on the
// session itself, whose only free field gorilla's registry overwrites; the
// table holds the session weakly and drops the page after it is collected.
// A page must not lead back to its gorilla session. Safe for concurrent use;
// the zero value is empty.
type pageTable struct {
	mu    sync.RWMutex
	pages map[weak.Pointer[sessions.Session]]*page // guarded by mu
}

func (t *pageTable) get(gs *sessions.Session) (*page, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p, ok := t.pages[weak.Make(gs)]
	return p, ok
}

func (t *pageTable) put(gs *sessions.Session, p *page) {
	key := weak.Make(gs)
	t.mu.Lock()
	if t.pages == nil {
		t.pages = make(map[weak.Pointer[sessions.Session]]*page)
	}
	t.pages[key] = p
	t.mu.Unlock()
	runtime.AddCleanup(gs, t.drop, key)
}

func (t *pageTable) drop(key weak.Pointer[sessions.Session]) {
	t.mu.Lock()
	delete(t.pages, key)
	t.mu.Unlock()
}
