package sessionstore_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// step is what one of several goroutines does next.
type step int

const (
	writeShared step = iota // sets the attribute that all write
	writeOwn                // sets its own attribute
	writePage               // sets its own attribute through a page
	addOne                  // increments the attribute that all increment
	readShared
	renewID
	loginAgain
	endStep // ends the session; drawn for one order in two, for one goroutine
)

// write is one that was made, or tried: between two moments.
type write struct {
	value     string
	from, to  int64
	succeeded bool
}

// race is one session that several goroutines use at a time, each through a
// replica of its own.
type race struct {
	t      *rapid.T
	handle string
	mayEnd bool
	clock  atomic.Int64 // orders the moments
	ended  atomic.Int64 // when the end was certain; zero: not yet

	mu      sync.Mutex
	writes  []write // of the shared attribute
	reads   []write
	counted int
}

// allowed fails for what must not happen: anything but the end that was asked
// for.
func (r *race) allowed(what string, err error, began int64) {
	var end *sessionstore.EndedError
	switch {
	case err == nil:
		if at := r.ended.Load(); at != 0 && at < began {
			r.t.Errorf("%s: succeeds after the end", what)
		}
	case r.mayEnd && errors.As(err, &end) && end.Reason == sessionstore.ReasonLogout:
	case r.mayEnd && errors.Is(err, sessionstore.ErrNotFound): // its record is gone, too
	default:
		r.t.Errorf("%s: %v", what, err)
	}
}

// One session, many goroutines: every write that was acknowledged is there,
// the shared attribute is one that nothing overwrote, reads never go back,
// and nothing succeeds after the end.
func TestAtTheSameTime(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		times(t, 6*propertyFactor)
		rapid.Check(t, func(rt *rapid.T) {
			workers := rapid.IntRange(2, 6).Draw(rt, "goroutines")
			steps := rapid.SliceOfN(rapid.SampledFrom([]step{
				writeShared, writeShared, writeOwn, writePage, addOne, addOne, readShared, readShared, renewID, loginAgain,
			}), 3, 12)
			plans := rapid.SliceOfN(steps, workers, workers).Draw(rt, "plans")
			ended := rapid.Bool().Draw(rt, "ended")
			if ended {
				plans[0] = append(plans[0], endStep)
			}
			compete(rt, t, srv, plans, ended)
		})
	})
}

func compete(rt *rapid.T, t *testing.T, srv *redistest.Server, plans [][]step, ends bool) {
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	for _, key := range rdb.Keys(t.Context(), "*").Val() { // of the race before
		must(t, rdb.Del(t.Context(), key).Err())
	}
	home := factory(t, rdb, sessionstore.Config{})
	s, err := home.Login(t.Context(), nil, ann)
	must(t, err)
	r := &race{t: rt, handle: s.Handle(), mayEnd: ends}
	last := make([]string, len(plans))
	var running sync.WaitGroup
	for n, plan := range plans {
		rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
		defer rdb.Close()
		f := factory(t, rdb, sessionstore.Config{})
		st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
		must(t, err)
		running.Go(func() {
			for i, what := range plan {
				r.do(t, f, st, what, fmt.Sprintf("w%d", n), strconv.Itoa(n*1000+i), &last[n])
			}
		})
	}
	running.Wait()
	r.check(t, rdb, home, last)
}

// do takes one step. own is the attribute that nobody else writes.
func (r *race) do(t *testing.T, f *sessionstore.Factory, st *sessionstore.Store, what step, own, v string, last *string) {
	ctx := t.Context()
	began := r.clock.Add(1)
	s, err := f.LoadHandle(ctx, r.handle)
	if err != nil {
		r.allowed("load", err, began)
		return
	}
	switch what {
	case writeShared:
		must(t, s.Set("shared", v))
		err = s.Save(ctx)
		r.note(&r.writes, write{v, began, r.clock.Add(1), err == nil})
	case readShared:
		got, _ := s.Get("shared")
		text, _ := got.(string)
		r.note(&r.reads, write{text, began, r.clock.Add(1), true})
	case writeOwn:
		must(t, s.Set(own, v))
		if err = s.Save(ctx); err == nil {
			*last = v
		}
	case writePage:
		err = r.page(t, st, s.ID(), own, v, last)
	case addOne:
		if _, err = f.Update(ctx, s.ID(), count); err == nil {
			r.mu.Lock()
			r.counted++
			r.mu.Unlock()
		}
	case renewID:
		err = s.Rotate(ctx, nil)
	case loginAgain:
		err = s.Rotate(ctx, &ann)
	case endStep:
		if err = f.EndHandle(ctx, r.handle, sessionstore.ReasonLogout); err == nil {
			r.ended.Store(r.clock.Add(1))
			return
		}
	}
	var end *sessionstore.EndedError
	if errors.As(err, &end) && end.Reason == sessionstore.ReasonRotated {
		return // a login replaced the ID meanwhile: this was refused, not lost
	}
	r.allowed(fmt.Sprint("step ", what), err, began)
}

// page writes by a request, as a browser does.
func (r *race) page(t *testing.T, st *sessionstore.Store, id, own, v string, last *string) error {
	req := asking(t, id)
	gs, err := st.Get(req, "tandem")
	if err != nil || gs.IsNew {
		return err // by now the ID is another, or none: no write
	}
	gs.Values[own] = v
	if err := st.Save(req, httptest.NewRecorder(), gs); err != nil {
		return err
	}
	*last = v
	return nil
}

func (r *race) note(list *[]write, w write) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, w)
}

// check looks at what is left.
func (r *race) check(t *testing.T, rdb *redis.Client, f *sessionstore.Factory, last []string) {
	s, err := f.LoadHandle(t.Context(), r.handle)
	if r.mayEnd {
		if !errors.Is(err, sessionstore.ErrEnded) && !errors.Is(err, sessionstore.ErrNotFound) {
			r.t.Fatalf("after the end: %v", err)
		}
		if left := append(rdb.Keys(t.Context(), "session:*").Val(), rdb.Keys(t.Context(), "tandem:sid:*").Val()...); len(left) > 0 {
			r.t.Fatalf("after the end there are %d keys of it", len(left))
		}
		return
	}
	must(t, err)
	for n, v := range last {
		if got, _ := s.Get(fmt.Sprintf("w%d", n)); v != "" && got != v {
			r.t.Errorf("writer %d wrote %s, there is %v", n, v, got)
		}
	}
	if got, _ := s.Get("n"); r.counted > 0 && got != strconv.Itoa(r.counted) {
		r.t.Errorf("%d increments, there is %v", r.counted, got)
	}
	got, _ := s.Get("shared")
	text, _ := got.(string)
	r.note(&r.reads, write{text, r.clock.Add(1), r.clock.Add(1), true})
	r.checkReads()
}

// checkReads holds what was read of the shared attribute to what a single
// register would have given: a write that began before the read ended, and
// that no other write, nor one that a read has seen before, came wholly after.
func (r *race) checkReads() {
	byValue := map[string]write{"": {to: 0, succeeded: true}}
	for _, w := range r.writes {
		byValue[w.value] = w
	}
	for _, read := range r.reads {
		seen, ok := byValue[read.value]
		if !ok || seen.from > read.to {
			r.t.Errorf("%q was read, which nobody had written", read.value)
		}
		for _, w := range r.writes {
			if w.succeeded && seen.to < w.from && w.to < read.from {
				r.t.Errorf("%q was read after %q had replaced it", read.value, w.value)
			}
		}
		for _, before := range r.reads {
			other := byValue[before.value]
			if before.to < read.from && seen.to < other.from {
				r.t.Errorf("%q was read after %q, which is newer", read.value, before.value)
			}
		}
	}
}
