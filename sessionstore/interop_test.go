package sessionstore_test

import (
	"encoding/gob"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// An application with the unmodified redisstore and Tandem read and write
// one session, whoever made it.
func TestStockApplication(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				f := factory(t, rdb, sessionstore.Config{Serializer: s.ours})
				app := newStock(t, rdb, s.stock)

				id := app.made("user.id", "7", "user.name", "Ann", "visits", 3)
				ours := loaded(t, f, id)
				if ours.UserID() != "7" || ours.UserName() != "Ann" || !sessionstore.ValidHandle(ours.Handle()) {
					t.Fatalf("user %q %q, handle %q", ours.UserID(), ours.UserName(), ours.Handle())
				}
				wantJSON(t, ours, "visits", "3")
				set(t, ours, "chat.name", "Annie")
				must(t, ours.Save(t.Context()))

				theirs := app.load(id)
				if theirs.IsNew || theirs.Values["chat.name"] != "Annie" || theirs.Values["user.name"] != "Ann" {
					t.Fatalf("the application sees %v", theirs.Values)
				}
				theirs.Values["theme"] = "dark"
				app.save(theirs)
				again := loaded(t, f, id)
				wantJSON(t, again, "theme", `"dark"`)
				if again.Handle() != ours.Handle() {
					t.Fatal("the handle has changed")
				}

				mine := created(t, f, "chat.name", "Bob", "n", 5)
				theirs = app.load(mine.ID())
				if theirs.IsNew || theirs.Values["chat.name"] != "Bob" {
					t.Fatalf("the application sees %v", theirs.Values)
				}
			})
		}
	})
}

// A value keeps its bytes through all that Tandem does to its neighbours.
func TestUntouchedBytesStay(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		id := sessionstore.NewID()
		members := []string{
			`"big":9007199254740993`, `"huge":123456789012345678901234567890`, `"exp":1.50e+02`,
			`"esc\u0061ped":"\u003ca\u003e \/"`, `"nested":{ "b" : [1, 2.0, {"z":null}] , "a":-0}`,
		}
		stored := "{" + strings.Join(members, ", ") + "}"
		must(t, rdb.Set(t.Context(), "session:"+id, stored, time.Hour).Err())

		s := loaded(t, f, id)
		set(t, s, "chat.name", "Ann")
		must(t, s.Save(t.Context()))
		must(t, s.Rotate(t.Context(), nil))
		set(t, s, "chat.name", "Bob")
		must(t, s.Save(t.Context()))

		now := raw(t, rdb, s.ID())
		at := -1
		for _, m := range members {
			i := strings.Index(now, m)
			if i < at {
				t.Errorf("%s: lost or out of order in %s", m, now)
			}
			at = i
		}
		if v, _ := s.Get("big"); v == 9007199254740992.0 {
			t.Error("a big integer was changed by looking at it")
		}
		wantJSON(t, s, "escaped", `"\u003ca\u003e \/"`)
	})
}

type notEverywhere struct{ A int }

// What cannot be decoded is there, and is not written over.
func TestUndecodable(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		var unregistered strings.Builder
		gob.RegisterName("main.elsewhere", notEverywhere{})
		must(t, gob.NewEncoder(&unregistered).Encode(map[any]any{"x": notEverywhere{1}}))
		elsewhere := strings.Replace(unregistered.String(), "main.elsewhere", "main.Elsewhere", 1)

		for name, c := range map[string]struct {
			serializer sessionstore.Serializer
			value      string
		}{
			"json garbage":           {sessionstore.JSON(), `{"a":1`},
			"json empty":             {sessionstore.JSON(), ``},
			"json null":              {sessionstore.JSON(), `null`},
			"json list":              {sessionstore.JSON(), `[1]`},
			"json twice":             {sessionstore.JSON(), `{} {}`},
			"gob in json":            {sessionstore.JSON(), unregistered.String()},
			"gob garbage":            {sessionstore.Gob(), "\x00\xff{}"},
			"gob type not known yet": {sessionstore.Gob(), elsewhere},
		} {
			t.Run(name, func(t *testing.T) {
				f := factory(t, rdb, sessionstore.Config{Serializer: c.serializer})
				id := sessionstore.NewID()
				must(t, rdb.Set(t.Context(), "session:"+id, c.value, time.Hour).Err())
				_, err := f.Load(t.Context(), id)
				wantErr(t, err, sessionstore.ErrUndecodable)
				_, err = f.Update(t.Context(), id, func(s *sessionstore.Session) error { return s.Set("a", 1) })
				wantErr(t, err, sessionstore.ErrUndecodable)

				// Not by a copy that was loaded while it could be, either.
				s := created(t, f, "a", 1)
				must(t, rdb.Set(t.Context(), "session:"+s.ID(), c.value, time.Hour).Err())
				set(t, s, "a", 2)
				wantErr(t, s.Save(t.Context()), sessionstore.ErrUndecodable)
				wantErr(t, s.Rotate(t.Context(), nil), sessionstore.ErrUndecodable)
				if got := raw(t, rdb, s.ID()); got != c.value || raw(t, rdb, id) != c.value {
					t.Fatalf("written over with %q", got)
				}
				must(t, f.End(t.Context(), s.ID(), sessionstore.ReasonRevoked)) // ending is no writing
				_, err = f.Load(t.Context(), s.ID())
				wantEnded(t, err, sessionstore.ReasonRevoked)
			})
		}
	})
}

// A slow request of an application cannot bring a session back.
func TestLateWriter(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		app := newStock(t, rdb, plainJSON{})
		s := created(t, f, "user.id", "7")
		theirs := app.load(s.ID())

		must(t, f.End(t.Context(), s.ID(), sessionstore.ReasonLogout))
		app.save(theirs)
		if n := rdb.Exists(t.Context(), "session:"+s.ID()).Val(); n != 1 {
			t.Fatal("the application did not bring it back: nothing is tested")
		}
		set(t, s, "a", 1)
		wantEnded(t, s.Save(t.Context()), sessionstore.ReasonLogout)
		_, err := f.Load(t.Context(), s.ID())
		wantEnded(t, err, sessionstore.ReasonLogout)
		if n := rdb.Exists(t.Context(), "session:"+s.ID()).Val(); n != 0 {
			t.Fatal("it is still there after it was seen")
		}
	})
}

// An application that read a session before Tandem adopted it, and writes it
// after, drops Tandem's attributes. The handle and the age stay.
func TestBlindWriteKeepsHandle(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				f := factory(t, rdb, sessionstore.Config{Serializer: s.ours})
				app := newStock(t, rdb, s.stock)
				id := app.made("user.id", "7")
				early := app.load(id)
				before := loaded(t, f, id)

				early.Values["theme"] = "dark"
				app.save(early)
				after := loaded(t, f, id)
				if after.Handle() != before.Handle() || !after.Created().Equal(before.Created()) {
					t.Fatalf("handle %s of %s became %s of %s", before.Handle(), before.Created(), after.Handle(), after.Created())
				}
				wantJSON(t, after, "theme", `"dark"`)

				app.save(early) // once more, under a working copy
				set(t, after, "chat.name", "Ann")
				must(t, after.Save(t.Context()))
				again := loaded(t, f, id)
				wantJSON(t, again, "chat.name", `"Ann"`)
				if again.Handle() != before.Handle() || !again.Created().Equal(before.Created()) {
					t.Fatal("a save lost the handle")
				}
			})
		}
	})
}

// Replicas that see a session at the same moment give it one handle.
func TestAdoptionRace(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			app := newStock(t, rdb, s.stock)
			for range 20 {
				id := app.made("user.id", "7")
				handles := make([]string, 4)
				var wg sync.WaitGroup
				for i := range handles {
					f := factory(t, rdb, sessionstore.Config{Serializer: s.ours})
					wg.Go(func() {
						if s, err := f.Load(t.Context(), id); err == nil {
							handles[i] = s.Handle() + s.Created().String()
						}
					})
				}
				wg.Wait()
				if handles[0] == "" || len(slices.Compact(slices.Clone(handles))) != 1 {
					t.Fatalf("%s: handles %q", s.name, handles)
				}
			}
		}
	})
}

// Keys that are not strings belong to the application, and survive.
func TestGobKeys(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{Serializer: sessionstore.Gob()})
		app := newStock(t, rdb, nil)
		id := app.made(42, "answer", "list", []any{"a", 1}, "user.id", uint16(9))
		s := loaded(t, f, id)
		if s.UserID() != "9" {
			t.Fatalf("user %q", s.UserID())
		}
		wantJSON(t, s, "list", `["a",1]`)
		set(t, s, "chat.name", "Ann")
		must(t, s.Save(t.Context()))
		if v := app.load(id).Values; v[42] != "answer" || v["chat.name"] != "Ann" {
			t.Fatalf("the application sees %v", v)
		}
	})
}

// An application claims that a session was made in the future: it ends all the
// same, whoever loads it next, and however often it is used.
func TestSessionOfTheFuture(t *testing.T) {
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, kind := range serializers {
			t.Run(kind.name, func(t *testing.T) {
				f := factory(t, rdb, sessionstore.Config{Serializer: kind.ours, AbsoluteTimeout: 2 * time.Hour})
				app := newStock(t, rdb, kind.stock)
				s, err := f.Login(t.Context(), nil, ann)
				must(t, err)
				gs := app.load(s.ID())
				gs.Values["tandem.created"] = "2999-01-02T03:04:05Z"
				app.save(gs)

				got := loaded(t, f, s.ID())
				if got.Handle() != s.Handle() || !got.ExpiresAt().Equal(s.ExpiresAt()) {
					t.Fatalf("it ends in %s, ended in %s before", time.Until(got.ExpiresAt()), time.Until(s.ExpiresAt()))
				}
				before := raw(t, rdb, s.ID())
				byHandle, err := f.LoadHandle(t.Context(), s.Handle())
				must(t, err)
				if !byHandle.ExpiresAt().Equal(got.ExpiresAt()) || raw(t, rdb, s.ID()) != before {
					t.Fatal("its end moves with every load")
				}
				infos, err := f.List(t.Context(), ann.UserID)
				must(t, err)
				for _, i := range infos {
					if i.Handle == s.Handle() && !i.ExpiresAt.Equal(got.ExpiresAt()) {
						t.Fatalf("it is listed to end %s, ends %s", i.ExpiresAt, got.ExpiresAt())
					}
				}
				id := app.made("tandem.created", "2999-01-02T03:04:05Z") // before Tandem saw it
				for range 2 {
					if left := time.Until(loaded(t, f, id).ExpiresAt()); left > 2*time.Hour || left < time.Hour {
						t.Fatalf("an adopted one is to end in %s", left)
					}
				}

				// A replica whose clock was wrong has noted it, too.
				gs = app.load(id)
				gs.Values["tandem.created"] = "2999-01-02T03:04:05Z"
				app.save(gs)
				handle := gs.Values["tandem.sid"].(string)
				must(t, rdb.Set(t.Context(), "tandem:sid:{session:"+id+"}", handle+" 2999-01-02T03:04:05Z", time.Hour).Err())
				for range 2 {
					got := loaded(t, f, id)
					if left := time.Until(got.ExpiresAt()); got.Handle() != handle || left > 2*time.Hour || left < time.Hour {
						t.Fatalf("one of the future is to end in %s", left)
					}
				}
			})
		}
	})
}
