package sessionstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// Writers of different attributes all keep their change.
func TestWritersOfDifferentAttributes(t *testing.T) {
	const writers = 4
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				writes := fewerOnMini(t, 200)
				if s.name != "json" {
					writes /= 5 // whole values are decoded, over and over
				}
				f := factory(t, rdb, sessionstore.Config{Serializer: s.ours})
				id := created(t, f).ID()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for i := range writes {
							s, err := f.Load(t.Context(), id)
							if err == nil {
								err = errors.Join(s.Set(fmt.Sprintf("w%d.%d", w, i), i), s.Save(t.Context()))
							}
							if err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				end := loaded(t, f, id)
				for w := range writers {
					for i := range writes {
						wantJSON(t, end, fmt.Sprintf("w%d.%d", w, i), fmt.Sprint(i))
					}
				}
			})
		}
	})
}

// Update is atomic for one attribute, too.
func TestUpdateIncrements(t *testing.T) {
	const writers = 4
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		writes := fewerOnMini(t, 200)
		f := factory(t, rdb, sessionstore.Config{})
		id := created(t, f, "n", 0).ID()
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range writes {
					if _, err := f.Update(t.Context(), id, increment); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		wantJSON(t, loaded(t, f, id), "n", fmt.Sprint(writers*writes))
	})
}

func increment(s *sessionstore.Session) error {
	n, _ := s.Get("n")
	return s.Set("n", n.(float64)+1)
}

// The client repeats a command whose reply was lost. The write happens once.
func TestLostReplies(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		link := redistest.NewLink(t, srv.Addr())
		rdb := redis.NewClient(&redis.Options{Addr: link.Addr(), MinRetryBackoff: -1})
		t.Cleanup(func() { _ = rdb.Close() })
		f := factory(t, rdb, sessionstore.Config{})
		id := created(t, f, "n", 0).ID()
		must(t, errOf(f.Update(t.Context(), id, increment))) // the scripts are known now
		lost := link.Accepted()
		for range 20 {
			must(t, errOf(f.Update(t.Context(), id, func(s *sessionstore.Session) error {
				link.DropReplies(1)
				return increment(s)
			})))
		}
		if link.Accepted() < lost+20 {
			t.Fatal("no reply was lost: nothing is tested")
		}
		wantJSON(t, loaded(t, f, id), "n", "21")

		for range 5 {
			s := f.New()
			link.DropReplies(1)
			must(t, s.Save(t.Context()))
			s = loaded(t, f, s.ID())
			old := s.ID()
			link.DropReplies(1)
			must(t, s.Rotate(t.Context(), &sessionstore.Login{UserID: "7"}))
			wantEnded(t, errOf(f.Load(t.Context(), old)), sessionstore.ReasonRotated)
			s = loaded(t, f, s.ID())
			ticket, _, err := f.IssueTicket(t.Context(), s)
			must(t, err)
			link.DropReplies(1)
			must(t, errOf(f.RedeemTicket(t.Context(), ticket)))
			link.DropReplies(1)
			must(t, s.Destroy(t.Context(), sessionstore.ReasonLogout))
			_, err = f.Load(t.Context(), s.ID())
			wantEnded(t, err, sessionstore.ReasonLogout)
		}
	})
}

func errOf[T any](_ T, err error) error { return err }

// A save merges, shows the merged state, and does nothing when nothing is new.
func TestSave(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f, "a", 1, "b", "x", "c", map[string]any{"k": 1})
		other := loaded(t, f, s.ID())

		set(t, other, "a", 2)
		must(t, other.Delete("b"))
		must(t, other.Save(t.Context()))
		set(t, s, "d", true)
		must(t, s.Save(t.Context()))
		wantJSON(t, s, "a", "2")
		wantJSON(t, s, "b", "")
		wantJSON(t, s, "d", "true")
		if got := strings.Join(s.Names(), " "); got != "a c d" {
			t.Fatalf("names %q", got)
		}

		before := raw(t, rdb, s.ID())
		sub := rdb.Subscribe(t.Context(), "tandem:sessions")
		defer sub.Close()
		must(t, errOf(sub.Receive(t.Context())))
		set(t, s, "a", 2, "c", map[string]int{"k": 1}, "d", false)
		set(t, s, "d", true)
		must(t, s.Delete("never"))
		must(t, s.Save(t.Context()))
		must(t, rdb.Publish(t.Context(), "tandem:sessions", "last").Err())
		if m, err := sub.ReceiveMessage(t.Context()); err != nil || m.Payload != "last" {
			t.Fatalf("a save of nothing announced %v (%v)", m, err)
		}
		if raw(t, rdb, s.ID()) != before {
			t.Fatal("a save of nothing wrote")
		}
	})
}

func TestSetRefuses(t *testing.T) {
	f := factory(t, redistest.Mini(t).Client(t), sessionstore.Config{MaxBytes: 300})
	s := created(t, f)
	wantErr(t, s.Set("tandem.sid", "x"), sessionstore.ErrReserved)
	wantErr(t, s.Delete("tandem.created"), sessionstore.ErrReserved)
	wantErr(t, s.Set("ch", make(chan int)), sessionstore.ErrValue)
	set(t, s, "a", strings.Repeat("x", 300))
	err := s.Save(t.Context())
	wantErr(t, err, sessionstore.ErrTooLarge)
	if !strings.Contains(err.Error(), "300") {
		t.Fatalf("%v does not name the limit", err)
	}
	_, err = f.Load(t.Context(), s.ID())
	must(t, err)

	gobs := factory(t, redistest.Mini(t).Client(t), sessionstore.Config{Serializer: sessionstore.Gob()})
	s = created(t, gobs)
	wantErr(t, s.Set("o", []byte(`{}`)), nil)
	wantErr(t, s.Set("o", rawJSON(`{"a":1}`)), sessionstore.ErrValue)
	wantErr(t, s.Set("o", rawJSON(`{`)), sessionstore.ErrValue)
	set(t, s, "l", rawJSON(`[1,2.5,"x",null,[true]]`))
	must(t, s.Save(t.Context()))
	wantJSON(t, loaded(t, gobs, s.ID()), "l", `[1,2.5,"x",null,[true]]`)
	set(t, s, "empty", rawJSON(`[]`), "in", rawJSON(`[[],1]`), "typed", []string{}, "bytes", []byte{})
	must(t, s.Save(t.Context()))
	for name, want := range map[string]string{"empty": `[]`, "in": `[[],1]`, "typed": `[]`, "bytes": `""`} {
		wantJSON(t, loaded(t, gobs, s.ID()), name, want)
		if got := loaded(t, gobs, s.ID()).Snapshot(); got != nil {
			raw, _ := got.JSON(name)
			if string(raw) != want {
				t.Errorf("a snapshot shows %s as %s", name, raw)
			}
		}
	}
	set(t, s, "bad", struct{ F func() }{})
	wantErr(t, s.Save(t.Context()), sessionstore.ErrValue)
}

// What a client makes up never reaches Redis.
func TestMalformedIDs(t *testing.T) {
	link := redistest.NewLink(t, "127.0.0.1:1")
	rdb := redis.NewClient(&redis.Options{Addr: link.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	f := factory(t, rdb, sessionstore.Config{})
	good := sessionstore.NewID()
	for _, id := range []string{
		"", "x", good[1:], good + "A", strings.ToLower(good), "*" + good[1:], "0" + good[1:], good[:102] + "\n",
		"../" + good[3:], good[:102] + "1", strings.Repeat("=", 103), "é" + good[2:],
	} {
		_, err := f.Load(t.Context(), id)
		wantErr(t, err, sessionstore.ErrNotFound)
		_, err = f.Update(t.Context(), id, nil)
		wantErr(t, err, sessionstore.ErrNotFound)
		wantErr(t, f.End(t.Context(), id, sessionstore.ReasonLogout), sessionstore.ErrNotFound)
		_, err = f.LoadHandle(t.Context(), id)
		wantErr(t, err, sessionstore.ErrNotFound)
	}
	if link.Accepted() != 0 {
		t.Fatal("Redis was asked")
	}
	if !sessionstore.ValidID(good) || !sessionstore.ValidHandle(sessionstore.NewHandle()) {
		t.Fatal("own IDs are refused")
	}
}

// An ID that nobody was given stays unknown.
func TestUnknownIDs(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		id := sessionstore.NewID()
		_, err := f.Load(t.Context(), id)
		wantErr(t, err, sessionstore.ErrNotFound)
		if n := rdb.DBSize(t.Context()).Val(); n != 0 {
			t.Fatalf("%d keys", n)
		}
	})
}

func TestTouch(t *testing.T) {
	const idle = 30 * time.Minute
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		key := "session:" + s.ID()
		ttl := func() time.Duration { return rdb.PTTL(ctx, key).Val() }
		about := func(what string, want time.Duration) {
			t.Helper()
			if got := ttl(); got > want || got < want-10*time.Second {
				t.Fatalf("%s: TTL %s, want %s", what, got, want)
			}
		}
		about("created", idle)
		must(t, rdb.PExpire(ctx, key, idle-30*time.Second).Err())
		loaded(t, f, s.ID())
		about("within the interval", idle-30*time.Second)
		must(t, rdb.PExpire(ctx, key, idle-61*time.Second).Err())
		if left := time.Until(loaded(t, f, s.ID()).IdleExpiresAt()); left < idle-10*time.Second {
			t.Fatalf("the session says %s", left)
		}
		about("past the interval", idle)
		must(t, rdb.PExpire(ctx, key, 30*24*time.Hour).Err())
		loaded(t, f, s.ID())
		about("another application's TTL", idle)
		must(t, rdb.Persist(ctx, key).Err())
		loaded(t, f, s.ID())
		about("no TTL", idle)
		must(t, rdb.PExpire(ctx, key, time.Minute).Err())
		must(t, f.Touch(ctx, s.Snapshot()))
		about("Touch", idle)

		must(t, rdb.Del(ctx, "tandem:handle:{"+s.Handle()+"}").Err())
		must(t, f.Touch(ctx, s.Snapshot()))
		must(t, errOf(f.Load(ctx, s.ID())))
		if rdb.Exists(ctx, "tandem:handle:{"+s.Handle()+"}").Val() != 0 {
			t.Fatal("what was not due wrote the index")
		}

		must(t, rdb.PExpire(ctx, key, time.Minute).Err())
		must(t, f.Touch(ctx, s.Snapshot()))
		must(t, rdb.PExpire(ctx, key, time.Minute).Err())
		must(t, errOf(f.LoadHandle(ctx, s.Handle())))
		about("a look by handle", time.Minute)

		must(t, rdb.Del(ctx, key).Err())
		must(t, f.Touch(ctx, s.Snapshot(), created(t, f).Snapshot()))
		if rdb.Exists(ctx, key).Val() != 0 {
			t.Fatal("a touch created a session")
		}
		_, err := f.Load(ctx, s.ID())
		wantErr(t, err, sessionstore.ErrNotFound)
	})
}

// The TTL never passes the end of the absolute lifetime, and the session
// ends there by itself.
func TestAbsoluteLifetime(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		app := newStock(t, rdb, plainJSON{})
		made := func(age time.Duration) string {
			return app.made("tandem.sid", sessionstore.NewHandle(),
				"tandem.created", time.Now().Add(-age).Format(time.RFC3339), "user.id", "7")
		}
		f := factory(t, rdb, sessionstore.Config{AbsoluteTimeout: time.Hour})
		id := made(50 * time.Minute)
		s := loaded(t, f, id)
		if ttl := rdb.PTTL(ctx, "session:"+id).Val(); ttl > 11*time.Minute || ttl < 9*time.Minute {
			t.Fatalf("TTL %s", ttl)
		}
		if left := time.Until(s.ExpiresAt()); left > 11*time.Minute || left < 9*time.Minute {
			t.Fatalf("ends in %s", left)
		}
		id = made(61 * time.Minute)
		_, err := f.Load(ctx, id)
		wantEnded(t, err, sessionstore.ReasonExpired)
		_, err = f.Load(ctx, id)
		wantEnded(t, err, sessionstore.ReasonExpired)
	})
}

// However an end and saves fall together, the session does not come back.
func TestEndBeatsSaves(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		for i := range 50 {
			s := created(t, f, "n", 0)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					var err error
					for err == nil {
						_, err = f.Update(t.Context(), s.ID(), increment)
					}
					if !errors.Is(err, sessionstore.ErrEnded) {
						t.Error(err)
					}
				})
			}
			wg.Go(func() {
				for range i % 5 {
					_, _ = f.Load(t.Context(), s.ID())
				}
				if err := f.End(t.Context(), s.ID(), sessionstore.ReasonLogout); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if rdb.Exists(t.Context(), "session:"+s.ID()).Val() != 0 {
				t.Fatal("it came back")
			}
			_, err := f.Load(t.Context(), s.ID())
			wantEnded(t, err, sessionstore.ReasonLogout)
			must(t, f.End(t.Context(), s.ID(), sessionstore.ReasonRevoked)) // the first reason stays
			_, err = f.Load(t.Context(), s.ID())
			wantEnded(t, err, sessionstore.ReasonLogout)
		}
	})
}

// That Redis is away says nothing about a session.
func TestUnavailable(t *testing.T) {
	srv := redistest.Start(t)
	rdb := srv.Client(t)
	f := factory(t, rdb, sessionstore.Config{})
	s := created(t, f, "a", 1, "user.id", "7")
	set(t, s, "a", 2)
	srv.Kill()
	ctx := t.Context()
	for name, err := range map[string]error{
		"Load":       errOf(f.Load(ctx, s.ID())),
		"LoadHandle": errOf(f.LoadHandle(ctx, s.Handle())),
		"Save":       s.Save(ctx),
		"create":     f.New().Save(ctx),
		"Update":     errOf(f.Update(ctx, s.ID(), increment)),
		"Rotate":     s.Rotate(ctx, nil),
		"Login":      errOf(f.Login(ctx, nil, sessionstore.Login{UserID: "7"})),
		"Destroy":    s.Destroy(ctx, sessionstore.ReasonLogout),
		"EndHandle":  f.EndHandle(ctx, s.Handle(), sessionstore.ReasonLogout),
		"EndUser":    errOf(f.EndUser(ctx, "7", sessionstore.ReasonLogout, "")),
		"List":       errOf(f.List(ctx, "7")),
		"List all":   errOf(f.List(ctx, "")),
		"Info":       errOf(f.Info(ctx, s.Handle())),
		"Redeem":     errOf(f.RedeemTicket(ctx, "x")),
		"Touch":      f.Touch(ctx, s.Snapshot()),
	} {
		if !errors.Is(err, sessionstore.ErrUnavailable) || strings.Contains(err.Error(), s.ID()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	rdb := redistest.Mini(t).Client(t)
	for name, cfg := range map[string]sessionstore.Config{
		"braces":   {KeyPrefix: "a{b}:"},
		"reserved": {KeyPrefix: "tandem:x:"},
		"idle":     {IdleTimeout: -1},
		"absolute": {AbsoluteTimeout: -1},
		"touch":    {TouchEvery: -1},
	} {
		if _, err := sessionstore.New(rdb, cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Peek sees what is there and leaves no trace.
func TestPeek(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{TouchEvery: time.Nanosecond})
		s := f.New()
		if err := errors.Join(s.Set("user.id", "7"), s.Save(t.Context())); err != nil {
			t.Fatal(err)
		}
		key := "session:" + s.ID()
		if err := rdb.PExpire(t.Context(), key, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		seen, err := f.Peek(t.Context(), s.ID())
		if err != nil || seen.Handle() != s.Handle() || seen.UserID() != "7" {
			t.Errorf("%+v, %v", seen, err)
		}
		if left := rdb.PTTL(t.Context(), key).Val(); left > time.Minute {
			t.Errorf("the session lives for %s", left)
		}
		if err := f.End(t.Context(), s.ID(), sessionstore.ReasonLogout); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{s.ID(), f.New().ID(), "short", strings.Repeat("A", 103)} {
			if _, err := f.Peek(t.Context(), id); !errors.Is(err, sessionstore.ErrNotFound) {
				t.Errorf("%.20s: %v", id, err)
			}
		}
		if err := rdb.Set(t.Context(), "session:"+strings.Repeat("B", 103), `{"user.id":"8"}`, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Peek(t.Context(), strings.Repeat("B", 103)); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("a session without a handle: %v", err)
		}
	})
}
