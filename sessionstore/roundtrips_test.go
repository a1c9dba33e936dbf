package sessionstore_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/sessions"
	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// trips counts the round trips to Redis; a pipeline is one.
type trips struct{ n int }

func (tr *trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (tr *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { tr.n++; return next(ctx, cmd) }
}

func (tr *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { tr.n++; return next(ctx, cmds) }
}

// What everyday work costs in round trips.
func TestRoundTrips(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		ctx := t.Context()
		rdb := srv.Client(t)
		f := factory(t, rdb, sessionstore.Config{})
		st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
		must(t, err)
		s, err := f.Login(ctx, created(t, f, "n", 0), ann)
		must(t, err)
		must(t, errOf(f.Update(ctx, s.ID(), increment)))
		must(t, created(t, f).Destroy(ctx, sessionstore.ReasonLogout)) // now the scripts are known
		var tr trips
		rdb.AddHook(&tr)
		cost := func(what string, want int, do func()) {
			t.Helper()
			tr.n = 0
			do()
			if tr.n != want {
				t.Errorf("%s: %d round trips, want %d", what, tr.n, want)
			}
		}

		cost("a load", 1, func() { s = loaded(t, f, s.ID()) })
		cost("an unchanged save", 0, func() { must(t, s.Save(ctx)) })
		set(t, s, "n", 7)
		cost("a changed save", 1, func() { must(t, s.Save(ctx)) })
		cost("an update", 2, func() { must(t, errOf(f.Update(ctx, s.ID(), increment))) })
		cost("a client's nonsense", 0, func() { wantErr(t, errOf(f.Load(ctx, "nonsense")), sessionstore.ErrNotFound) })
		cost("a page without a cookie", 0, func() { must(t, errOf(st.Get(asking(t, ""), "tandem"))) })
		cost("a page that asks in every way", 1, func() {
			r := asking(t, s.ID())
			must(t, errOf(st.Session(r)))
			gs, err := st.Get(r, "tandem")
			must(t, err)
			must(t, errOf(st.Session(r)))
			must(t, st.Save(r, httptest.NewRecorder(), gs))
		})
		cost("a page that writes", 2, func() {
			r := asking(t, s.ID())
			gs, err := st.Get(r, "tandem")
			must(t, err)
			gs.Values["n"] = 99.0
			must(t, st.Save(r, httptest.NewRecorder(), gs))
		})

		// With a new ID come an heir, its turn, and its life; for the listing a
		// record, and with a user their index. What ends leaves them.
		cost("a new session", 2, func() { s = created(t, f, "n", 0) })
		cost("a rotation", 4, func() { must(t, s.Rotate(ctx, nil)) })
		cost("a login in it", 5, func() { s, err = f.Login(ctx, s, ann) })
		must(t, err)
		cost("a login without a session", 3, func() { must(t, errOf(f.Login(ctx, nil, ann))) })
		cost("a session by its handle", 2, func() { must(t, errOf(f.LoadHandle(ctx, s.Handle()))) })
		cost("an end by ID", 2, func() { must(t, f.End(ctx, s.ID(), sessionstore.ReasonLogout)) })
		cost("a load of what has ended", 1, func() { wantEnded(t, errOf(f.Load(ctx, s.ID())), sessionstore.ReasonLogout) })
		cost("an end that was before", 1, func() { must(t, f.End(ctx, s.ID(), sessionstore.ReasonLogout)) })
		s, err = f.Login(ctx, nil, ann)
		must(t, err)
		cost("an end by handle", 3, func() { must(t, f.EndHandle(ctx, s.Handle(), sessionstore.ReasonRevoked)) })
		s, err = f.Login(ctx, nil, ann)
		must(t, err)
		cost("a logout", 2, func() { must(t, s.Destroy(ctx, sessionstore.ReasonLogout)) })
	})
}

// Who asks for the typed session first, and for gorilla's later, sees and
// saves the same.
func TestTypedSessionFirst(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				f := factory(t, srv.Client(t), sessionstore.Config{Serializer: s.ours})
				st, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
				must(t, err)
				id := created(t, f, "a", "x", "b", "x", "c", "x").ID()

				r := asking(t, id)
				typed, err := st.Session(r)
				must(t, err)
				set(t, typed, "a", "typed")
				must(t, typed.Delete("b"))
				gs, err := st.Get(r, "tandem")
				must(t, err)
				again, ok := sessionstore.Of(gs)
				if !ok || again != typed || gs.ID != id || gs.IsNew {
					t.Fatal("another session")
				}
				if _, there := gs.Values["b"]; gs.Values["a"] != "typed" || there || gs.Values["c"] != "x" {
					t.Fatalf("gorilla has %v", gs.Values)
				}
				gs.Values["d"] = "gorilla"
				delete(gs.Values, "c")
				if again, _ := st.Get(r, "tandem"); again != gs || again.Values["d"] != "gorilla" {
					t.Fatal("a second Get starts over")
				}
				must(t, gs.Save(r, httptest.NewRecorder()))
				got := loaded(t, f, id)
				for name, want := range map[string]string{"a": `"typed"`, "b": "", "c": "", "d": `"gorilla"`} {
					wantJSON(t, got, name, want)
				}

				// Nobody asks for gorilla's, and it is saved all the same.
				r = asking(t, id)
				typed, err = st.Session(r)
				must(t, err)
				set(t, typed, "a", "again")
				must(t, sessionsSave(r))
				got = loaded(t, f, id)
				wantJSON(t, got, "a", `"again"`)
				wantJSON(t, got, "d", `"gorilla"`)
			})
		}
	})
}

// sessionsSave is what middlewares do at the end of a request.
func sessionsSave(r *http.Request) error { return sessions.Save(r, httptest.NewRecorder()) }
