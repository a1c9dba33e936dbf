package sessionstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore"
)

var (
	ann = sessionstore.Login{UserID: "7", UserName: "Ann"}
	bob = sessionstore.Login{UserID: "8", UserName: "Bob"}
)

// A request that began before the ID was replaced for another reason, and then
// by a login, must not come to the session that is logged in: who knows the ID
// from before the login would be given the one from after it.
func TestRotationDoesNotPassALogin(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		early := loaded(t, f, s.ID())
		must(t, s.Rotate(t.Context(), nil))
		s, err := f.Login(t.Context(), s, ann)
		must(t, err)
		set(t, early, "a", 1)
		wantEnded(t, early.Rotate(t.Context(), nil), sessionstore.ReasonRotated)
		wantEnded(t, early.Save(t.Context()), sessionstore.ReasonRotated)
		wantJSON(t, loaded(t, f, s.ID()), "a", "")
	})
}

// An ID that was replaced leads to the session for a while, through every
// rotation since, and then says that it was replaced.
func TestRotationChain(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f, "a", 1)
		ids := []string{s.ID()}
		for range 3 {
			set(t, s, "n", len(ids))
			must(t, s.Rotate(ctx, nil))
			if !s.Renewed() || rdb.Exists(ctx, "session:"+ids[len(ids)-1]).Val() != 0 {
				t.Fatal("the old value is still there")
			}
			ids = append(ids, s.ID())
		}
		for _, id := range ids {
			got := loaded(t, f, id)
			if got.ID() != s.ID() || got.Handle() != s.Handle() || got.Renewed() != (id != s.ID()) {
				t.Fatal("led to something else")
			}
			wantJSON(t, got, "n", "3")
			wantJSON(t, got, "a", "1")
		}
		if ttl := rdb.PTTL(ctx, "session:"+s.ID()).Val(); ttl < 29*time.Minute {
			t.Fatalf("the new ID lives for %s", ttl)
		}

		// The grace is over.
		must(t, rdb.Del(ctx, "tandem:next:{session:"+ids[2]+"}").Err())
		_, err := f.Load(ctx, ids[0])
		wantEnded(t, err, sessionstore.ReasonRotated)
		loaded(t, f, ids[3])
		byHandle, err := f.LoadHandle(ctx, s.Handle())
		must(t, err)
		if byHandle.ID() != s.ID() {
			t.Fatal("the handle leads elsewhere")
		}

		// Ending by the oldest ID finds the session, the grace being over or not.
		must(t, f.End(ctx, ids[0], sessionstore.ReasonRevoked))
		_, err = f.Load(ctx, ids[3])
		wantEnded(t, err, sessionstore.ReasonRevoked)
	})
}

func TestGraceIsShort(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{Grace: 50 * time.Millisecond})
		s := created(t, f)
		old := s.ID()
		must(t, s.Rotate(t.Context(), nil))
		until(t, "the grace is over", func() bool {
			_, err := f.Load(t.Context(), old)
			return errors.Is(err, sessionstore.ErrEnded)
		})
		none := factory(t, rdb, sessionstore.Config{Grace: -1})
		s = created(t, none)
		old = s.ID()
		must(t, s.Rotate(t.Context(), nil))
		_, err := none.Load(t.Context(), old)
		wantEnded(t, err, sessionstore.ReasonRotated)
	})
}

// A copy that was loaded before a rotation saves to where the session is.
func TestSaveFollowsRotation(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f, "a", 1)
		slow := loaded(t, f, s.ID())
		set(t, slow, "slow", true)
		must(t, s.Rotate(t.Context(), nil))
		set(t, s, "b", 2)
		must(t, s.Save(t.Context()))
		must(t, slow.Save(t.Context()))
		if slow.ID() != s.ID() || !slow.Renewed() {
			t.Fatal("saved elsewhere")
		}
		for name, want := range map[string]string{"a": "1", "b": "2", "slow": "true"} {
			wantJSON(t, loaded(t, f, s.ID()), name, want)
		}
	})
}

// Whoever knew the ID before a login is not logged in by it: not by a
// request, and not by one that was under way.
func TestLoginLeavesNoGrace(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f, "chat.name", "guest")
		before, handle, begun := s.ID(), s.Handle(), s.Created()
		slow := loaded(t, f, before)
		set(t, slow, "x", 1)

		in, err := f.Login(ctx, s, ann)
		must(t, err)
		if in.Handle() != handle || in.ID() == before || in.UserID() != "7" || in.UserName() != "Ann" {
			t.Fatalf("handle %s of %s, user %q", in.Handle(), handle, in.UserID())
		}
		wantJSON(t, in, "chat.name", `"guest"`)
		if in.Created().Before(begun) {
			t.Fatal("the absolute lifetime did not start anew")
		}
		_, err = f.Load(ctx, before)
		wantEnded(t, err, sessionstore.ReasonRotated)
		wantEnded(t, slow.Save(ctx), sessionstore.ReasonRotated)
		if slow.ID() == in.ID() {
			t.Fatal("the new ID was given away")
		}
		if _, err := f.LoadHandle(ctx, handle); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLogin(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		login := func(current *sessionstore.Session, l sessionstore.Login) *sessionstore.Session {
			t.Helper()
			s, err := f.Login(ctx, current, l)
			must(t, err)
			return loaded(t, f, s.ID())
		}
		first := login(nil, ann)
		if auth, ok := first.Get("tandem.auth"); !ok || auth == "" {
			t.Fatal("no time of login")
		}
		unsaved := f.New()
		set(t, unsaved, "a", 1)
		wantJSON(t, login(unsaved, ann), "a", "1")

		set(t, first, "a", 1)
		must(t, first.Save(ctx))
		again := login(first, ann)
		if again.Handle() != first.Handle() {
			t.Fatal("the same user lost the handle")
		}
		wantJSON(t, again, "a", "1")

		other := login(again, bob)
		if other.Handle() == again.Handle() || other.UserID() != "8" {
			t.Fatal("another user got the handle")
		}
		wantJSON(t, other, "a", "")
		_, err := f.LoadHandle(ctx, again.Handle())
		wantErr(t, err, sessionstore.ErrNotFound) // its record is gone
		_, err = f.Load(ctx, again.ID())
		wantErr(t, err, sessionstore.ErrEnded)
		if infos, _ := f.List(ctx, "7"); len(infos) != 1 { // unsaved's
			t.Fatalf("Ann has %d sessions", len(infos))
		}

		// The session ended while the form was filled in.
		stale := loaded(t, f, other.ID())
		must(t, f.End(ctx, other.ID(), sessionstore.ReasonRevoked))
		if s := login(stale, bob); s.Handle() == other.Handle() {
			t.Fatal("an ended session came back")
		}
		full := created(t, f, "a", strings.Repeat("x", 64<<10-200))
		wantJSON(t, login(full, ann), "user.name", `"Ann"`)

		_, err = f.Login(ctx, nil, sessionstore.Login{})
		if err == nil {
			t.Fatal("nobody was logged in")
		}
	})
}

// The form was sent twice: there is one session.
func TestLoginTwiceAtATime(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		anonymous := created(t, f)
		copies := []*sessionstore.Session{loaded(t, f, anonymous.ID()), loaded(t, f, anonymous.ID()), loaded(t, f, anonymous.ID())}
		for _, c := range copies[:2] {
			s, err := f.Login(ctx, c, ann)
			must(t, err)
			if s.Handle() != anonymous.Handle() {
				t.Fatal("two sessions")
			}
		}
		// Another user with the old ID does not get or end Ann's session.
		s, err := f.Login(ctx, copies[2], bob)
		must(t, err)
		if s.Handle() == anonymous.Handle() {
			t.Fatal("Bob is in Ann's session")
		}
		got, err := f.LoadHandle(ctx, anonymous.Handle())
		must(t, err)
		if got.UserID() != "7" {
			t.Fatalf("Ann's session is of %q", got.UserID())
		}
	})
}

// A revocation that races with rotations ends the session all the same, and
// writes that race with a rotation are kept.
func TestEndRacesRotation(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		for range fewerOnMini(t, 100) {
			s := created(t, f, "user.id", "7")
			first, second := loaded(t, f, s.ID()), loaded(t, f, s.ID())
			var wg sync.WaitGroup
			for _, c := range []*sessionstore.Session{first, second} {
				wg.Go(func() {
					for range 2 {
						if err := c.Rotate(ctx, nil); err != nil {
							wantKind(t, err, sessionstore.ErrEnded)
							return
						}
					}
				})
			}
			wg.Go(func() {
				if err := f.EndHandle(ctx, s.Handle(), sessionstore.ReasonRevoked); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			for _, c := range []*sessionstore.Session{s, first, second} {
				if rdb.Exists(ctx, "session:"+c.ID()).Val() != 0 {
					t.Fatal("a revoked session lives on under another ID")
				}
				_, err := f.Load(ctx, c.ID())
				wantErr(t, err, sessionstore.ErrEnded)
			}
		}
	})
}

func wantKind(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestRotationKeepsWrites(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f, "n", 0.0)
		var wg sync.WaitGroup
		writes := fewerOnMini(t, 100)
		wg.Go(func() {
			id := s.ID()
			for range writes {
				got, err := f.Update(ctx, id, increment)
				if err != nil {
					t.Error(err)
					return
				}
				id = got.ID()
			}
		})
		c := loaded(t, f, s.ID())
		for range 20 {
			must(t, c.Rotate(ctx, nil))
		}
		wg.Wait()
		got, err := f.LoadHandle(ctx, s.Handle())
		must(t, err)
		n, _ := got.Get("n")
		if n != float64(writes) {
			t.Fatalf("%v of %d increments", n, writes)
		}
	})
}

// A process that dies right after the old ID gave way leaves an heir that
// is short-lived until somebody comes by it.
func TestRotationIsHealed(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		old := s.ID()
		must(t, s.Rotate(ctx, nil))
		must(t, rdb.PExpire(ctx, "session:"+s.ID(), 50*time.Second).Err())
		must(t, rdb.HSet(ctx, "tandem:handle:{"+s.Handle()+"}", "id", old).Err())
		loaded(t, f, old)
		if ttl := rdb.PTTL(ctx, "session:"+s.ID()).Val(); ttl < 29*time.Minute {
			t.Fatalf("TTL %s", ttl)
		}
		if id := rdb.HGet(ctx, "tandem:handle:{"+s.Handle()+"}", "id").Val(); id != s.ID() {
			t.Fatal("the record is as it was")
		}
	})
}

// A rotation announces itself by the handle, and nothing announces an ID.
func TestNewsHoldNoID(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		sub := rdb.Subscribe(ctx, "tandem:sessions")
		defer sub.Close()
		must(t, errOf(sub.Receive(ctx)))
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		set(t, s, "a", 1)
		must(t, s.Save(ctx))
		must(t, s.Rotate(ctx, nil))
		must(t, f.End(ctx, s.ID(), sessionstore.ReasonLogout))
		for _, want := range []string{
			`{"t":"changed","sid":"H"}`, `{"t":"rotated","sid":"H"}`, `{"t":"ended","sid":"H","reason":"logout"}`,
		} {
			m, err := sub.ReceiveMessage(ctx)
			must(t, err)
			if m.Payload != strings.ReplaceAll(want, "H", s.Handle()) {
				t.Fatalf("announced %s, want %s", m.Payload, want)
			}
		}
	})
}
