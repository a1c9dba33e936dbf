package sessionstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

// key is 32 bytes of the same letter.
func key(letter string) []byte { return []byte(strings.Repeat(letter, 32)) }

func ring(t testing.TB, letters string) *sessionstore.KeyRing {
	t.Helper()
	var keys [][]byte
	for _, letter := range letters {
		keys = append(keys, key(string(letter)))
	}
	r, err := sessionstore.NewKeyRing(keys...)
	must(t, err)
	return r
}

// guarded is everything that protects sessions at rest.
func guarded(t testing.TB, cfg sessionstore.Config) sessionstore.Config {
	cfg.HashIDs, cfg.Seal = true, ring(t, "a")
	return cfg
}

// dump is every key and value in Redis.
func dump(t *testing.T, rdb redis.UniversalClient) string {
	t.Helper()
	ctx := t.Context()
	var b strings.Builder
	for _, key := range allKeys(t, rdb) {
		b.WriteString(key + "\n")
		switch rdb.Type(ctx, key).Val() {
		case "string":
			b.WriteString(rdb.Get(ctx, key).Val())
		case "hash":
			for field, value := range rdb.HGetAll(ctx, key).Val() {
				b.WriteString(field + "=" + value + "\n")
			}
		case "zset":
			b.WriteString(strings.Join(rdb.ZRange(ctx, key, 0, -1).Val(), " "))
		}
	}
	return b.String()
}

// Whatever happens to sessions, nothing that is in Redis at any time makes a
// cookie or shows an attribute.
func TestNothingToReadAtRest(t *testing.T) {
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, guarded(t, sessionstore.Config{}))
		var ids []string
		look := func(s *sessionstore.Session) {
			t.Helper()
			ids = append(ids, s.ID())
			held := dump(t, rdb)
			for _, id := range ids {
				if strings.Contains(held, id) || strings.Contains(held, id[:40]) {
					t.Fatalf("an ID is in Redis:\n%q", held)
				}
			}
			if strings.Contains(held, "secret") || strings.Contains(held, "tandem.sid") {
				t.Fatalf("an attribute is in Redis:\n%q", held)
			}
		}
		s := created(t, f, "a", "secret")
		look(s)
		ticket, _, err := f.IssueTicket(ctx, s)
		must(t, err)
		look(s)
		must(t, s.Rotate(ctx, nil))
		look(s)
		redeemed, err := f.RedeemTicket(ctx, ticket)
		must(t, err)
		if redeemed != s.ID() {
			t.Fatal("a ticket leads elsewhere")
		}
		s, err = f.Login(ctx, s, ann)
		must(t, err)
		look(s)
		must(t, f.Touch(ctx, s.Snapshot()))
		must(t, errOf(f.Update(ctx, s.ID(), func(s *sessionstore.Session) error { return s.Set("b", "more secret") })))
		look(s)
		must(t, f.End(ctx, s.ID(), sessionstore.ReasonLogout))
		look(s)
	})
}

// What hangs on IDs works without Redis knowing them.
func TestHashedIDs(t *testing.T) {
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{HashIDs: true})
		s := created(t, f, "a", 1)
		first := s.ID()
		slow := loaded(t, f, first)

		// The ID that was replaced leads on, also twice.
		must(t, s.Rotate(ctx, nil))
		must(t, s.Rotate(ctx, nil))
		if got := loaded(t, f, first); got.ID() != s.ID() || !got.Renewed() {
			t.Fatal("the old ID leads elsewhere")
		}
		set(t, slow, "slow", true)
		must(t, slow.Save(ctx))
		if slow.ID() != s.ID() {
			t.Fatal("a save that followed does not know the ID")
		}

		// By the handle everything but a rotation.
		byHandle, err := f.LoadHandle(ctx, s.Handle())
		must(t, err)
		if byHandle.ID() != "" || byHandle.IsNew() {
			t.Fatal("Redis gave an ID away")
		}
		wantJSON(t, byHandle, "slow", "true")
		if byHandle.Rotate(ctx, nil) == nil {
			t.Fatal("a rotation that no client can follow")
		}
		_, _, err = f.IssueTicket(ctx, byHandle)
		if err == nil {
			t.Fatal("a ticket that opens nothing")
		}
		set(t, byHandle, "b", 2)
		must(t, s.Rotate(ctx, nil))
		must(t, byHandle.Save(ctx))
		wantJSON(t, loaded(t, f, s.ID()), "b", "2")

		// A login is not followed by the client, and sent twice is one.
		before := loaded(t, f, s.ID())
		in, err := f.Login(ctx, loaded(t, f, s.ID()), ann)
		must(t, err)
		_, err = f.Load(ctx, before.ID())
		wantEnded(t, err, sessionstore.ReasonRotated)
		again, err := f.Login(ctx, before, ann)
		must(t, err)
		if again.Handle() != in.Handle() || again.ID() == "" || again.ID() == in.ID() {
			t.Fatal("the login was not the same session's")
		}
		infos, err := f.List(ctx, "7")
		wantHandles(t, infos, err, again)

		// What is in Redis is not good as a cookie.
		for _, key := range allKeys(t, rdb) {
			_, err := f.Load(ctx, strings.TrimPrefix(key, "session:"))
			wantErr(t, err, sessionstore.ErrNotFound)
		}
		must(t, f.End(ctx, first, sessionstore.ReasonRevoked))
		_, err = f.Load(ctx, again.ID())
		wantEnded(t, err, sessionstore.ReasonRevoked)
		wantErr(t, f.EndHandle(ctx, again.Handle(), sessionstore.ReasonRevoked), sessionstore.ErrNotFound)
	})
}

// A ticket is worth what the cookie was when it was issued.
func TestTicketDoesNotOutliveLogin(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		ticket, _, err := f.IssueTicket(t.Context(), s)
		must(t, err)
		must(t, errOf(f.Login(t.Context(), s, ann)))
		_, err = f.RedeemTicket(t.Context(), ticket)
		wantEnded(t, err, sessionstore.ReasonRotated)
	})
}

// A new key seals, old ones open what they sealed, and what none opens stays
// as it is.
func TestKeyRing(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, s := range serializers {
			t.Run(s.name, func(t *testing.T) {
				ctx := t.Context()
				with := func(letters string) *sessionstore.Factory {
					return factory(t, rdb, sessionstore.Config{Serializer: s.ours, Seal: ring(t, letters)})
				}
				plain := factory(t, rdb, sessionstore.Config{Serializer: s.ours})
				session := created(t, plain, "a", "x")
				id := session.ID()

				// From before there were keys: read, and sealed with the next write.
				first := loaded(t, with("a"), id)
				wantJSON(t, first, "a", `"x"`)
				set(t, first, "b", "y")
				must(t, first.Save(ctx))
				sealed := raw(t, rdb, id)
				if strings.Contains(sealed, "tandem.sid") {
					t.Fatal("not sealed")
				}

				both := loaded(t, with("ba"), id)
				set(t, both, "c", "z")
				must(t, both.Save(ctx))
				for name, f := range map[string]*sessionstore.Factory{"b": with("b"), "ab": with("ab")} {
					if got := loaded(t, f, id); got.Handle() != session.Handle() || len(got.Names()) != 3 {
						t.Fatalf("keys %s: %v", name, got.Names())
					}
				}
				held := raw(t, rdb, id)
				for name, f := range map[string]*sessionstore.Factory{"a": with("a"), "none": plain} {
					_, err := f.Load(ctx, id)
					wantErr(t, err, sessionstore.ErrUndecodable)
					// A copy from before the key was changed.
					must(t, rdb.Set(ctx, "session:"+id, sealed, time.Hour).Err())
					if name == "a" {
						late := loaded(t, f, id)
						must(t, rdb.Set(ctx, "session:"+id, held, time.Hour).Err())
						set(t, late, "d", 1)
						wantErr(t, late.Save(ctx), sessionstore.ErrUndecodable)
						wantErr(t, late.Rotate(ctx, nil), sessionstore.ErrUndecodable)
					}
					must(t, rdb.Set(ctx, "session:"+id, held, time.Hour).Err())
				}
				if raw(t, rdb, id) != held {
					t.Fatal("what cannot be opened was written over")
				}
				must(t, with("a").EndHandle(ctx, session.Handle(), sessionstore.ReasonRevoked))
			})
		}
	})
}

// Who writes to Redis cannot make one session of another.
func TestSealedValuesKeepTheirPlace(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, guarded(t, sessionstore.Config{}))
		admin, err := f.Login(ctx, nil, ann)
		must(t, err)
		valueOf := func(s *sessionstore.Session) string {
			return "session:" + rdb.HGet(ctx, "tandem:handle:{"+s.Handle()+"}", "id").Val()
		}
		mine := created(t, f)
		stolen := rdb.Get(ctx, valueOf(admin)).Val()
		for name, value := range map[string]string{
			"another session's": stolen, "cut": stolen[:20], "cut more": stolen[:3], "no nonce": stolen[:26],
			"changed": stolen[:len(stolen)-1] + "x", "another key's": stolen[:18] + "xxxxxxxx" + stolen[26:],
		} {
			must(t, rdb.Set(ctx, valueOf(mine), value, time.Hour).Err())
			if _, err := f.Load(ctx, mine.ID()); err == nil {
				t.Errorf("%s value was taken", name)
			}
		}
		must(t, f.EndHandle(ctx, mine.Handle(), sessionstore.ReasonRevoked))
	})
}

func TestParseKeys(t *testing.T) {
	line := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) + "\n" }
	keys, err := sessionstore.ParseKeys([]byte("# newest first\n\n" + line(key("b")) + "  " + line(key("a"))))
	if err != nil || len(keys) != 2 || !bytes.Equal(keys[0], key("b")) || !bytes.Equal(keys[1], key("a")) {
		t.Fatalf("%q, %v", keys, err)
	}
	for text, want := range map[string]string{
		"":                               "no key",
		"# nothing\n":                    "no key",
		line(key("a")) + "x\n":           "line 2",
		line(key("a")[1:]):               "line 1",
		"\n" + line(append(key("a"), 1)): "line 2",
	} {
		if _, err := sessionstore.ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "YWFh") {
			t.Errorf("%q: %v", text, err)
		}
	}
	r := ring(t, "a")
	for _, wrong := range [][][]byte{nil, {key("a"), nil}, {key("a")[1:]}} {
		if r.Replace(wrong...) == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

// Keys are replaced while sessions are in use.
func TestKeysReplacedInUse(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		keys := ring(t, "a")
		f := factory(t, rdb, sessionstore.Config{Seal: keys})
		s := created(t, f, "n", 0)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			var err error
			for ctx.Err() == nil && err == nil {
				_, err = f.Update(t.Context(), s.ID(), increment)
			}
			done <- err
		}()
		for _, letters := range []string{"ab", "ba", "b", "bc", "cb", "c"} {
			must(t, keys.Replace(keysOf(letters)...))
			before := raw(t, rdb, s.ID())
			until(t, "a write with these keys", func() bool { return raw(t, rdb, s.ID()) != before })
			before = raw(t, rdb, s.ID())
			until(t, "another", func() bool { return raw(t, rdb, s.ID()) != before })
		}
		stop()
		must(t, <-done)
	})
}

func keysOf(letters string) (keys [][]byte) {
	for _, letter := range letters {
		keys = append(keys, key(string(letter)))
	}
	return keys
}

// Sockets stay bound by what Redis knows.
func TestWatcherAtRest(t *testing.T) {
	redistest.Each(t, func(t *testing.T, srv *redistest.Server) {
		f := factory(t, srv.Client(t), guarded(t, sessionstore.Config{}))
		w := watching(t, f)

		s := created(t, f, "user.id", "7")
		l := told{make(chan sessionstore.Reason, 1)}
		b, _, err := w.Bind(t.Context(), s.ID(), l)
		must(t, err)
		must(t, s.Rotate(t.Context(), nil))
		must(t, errOf(b.Update(t.Context(), func(s *sessionstore.Session) error { return s.Set("a", 1) })))
		s, err = f.Login(t.Context(), s, ann)
		must(t, err)
		wantJSON(t, s, "a", "1")
		must(t, errOf(b.Update(t.Context(), func(s *sessionstore.Session) error { return s.Set("a", 2) })))
		wantJSON(t, loaded(t, f, s.ID()), "a", "2")
		b.Touch()
		must(t, f.EndHandle(t.Context(), s.Handle(), sessionstore.ReasonRevoked))
		if got := <-l.ended; got != sessionstore.ReasonRevoked {
			t.Fatalf("ended: %s", got)
		}
	})
}
