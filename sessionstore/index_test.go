package sessionstore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-6230208e/tandem/sessionstore"
)

func handles(infos []sessionstore.Info) []string {
	var hs []string
	for _, i := range infos {
		hs = append(hs, i.Handle)
	}
	slices.Sort(hs)
	return hs
}

func wantHandles(t *testing.T, infos []sessionstore.Info, err error, want ...*sessionstore.Session) {
	t.Helper()
	must(t, err)
	var hs []string
	for _, s := range want {
		hs = append(hs, s.Handle())
	}
	slices.Sort(hs)
	if got := handles(infos); !slices.Equal(got, hs) {
		t.Fatalf("listed %v, want %v", got, hs)
	}
}

func TestListAndEnd(t *testing.T) {
	eachAndCluster(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := sessionstore.WithMeta(t.Context(), sessionstore.Meta{
			UserAgent: "Browser/1 " + strings.Repeat("é", 200), Address: "192.0.2.1",
		})
		f := factory(t, rdb, sessionstore.Config{})
		login := func(l sessionstore.Login) *sessionstore.Session {
			s, err := f.Login(ctx, nil, l)
			must(t, err)
			return s
		}
		a1, a2, a3, b := login(ann), login(ann), login(ann), login(bob)
		created(t, f) // anonymous

		infos, err := f.List(ctx, "7")
		wantHandles(t, infos, err, a1, a2, a3)
		if i := infos[0]; i.UserName != "Ann" || i.Address != "192.0.2.1" || !strings.HasPrefix(i.UserAgent, "Browser/1 ") ||
			len(i.UserAgent) > 256 || time.Since(i.LastSeen) > time.Minute || !i.ExpiresAt.After(time.Now().Add(11*time.Hour)) {
			t.Fatalf("%+v", i)
		}
		infos, err = f.List(ctx, "")
		wantHandles(t, infos, err, a1, a2, a3, b)
		infos, err = f.Find(ctx, "Bob")
		wantHandles(t, infos, err, b)
		infos, err = f.Find(ctx, "7")
		wantHandles(t, infos, err, a1, a2, a3)
		infos, err = f.Find(ctx, "nobody")
		wantHandles(t, infos, err)

		// One expired, one rotated with its record out of date.
		must(t, rdb.Del(ctx, "session:"+a2.ID()).Err())
		old := a3.ID()
		must(t, a3.Rotate(ctx, nil))
		must(t, rdb.HSet(ctx, "tandem:handle:{"+a3.Handle()+"}", "id", old).Err())
		infos, err = f.List(ctx, "7")
		wantHandles(t, infos, err, a1, a3)
		_, err = f.Info(ctx, a2.Handle())
		wantErr(t, err, sessionstore.ErrNotFound)
		_, err = f.Info(ctx, a3.Handle())
		must(t, err)

		must(t, f.EndHandle(ctx, a3.Handle(), sessionstore.ReasonRevoked))
		_, err = f.Load(ctx, a3.ID())
		wantEnded(t, err, sessionstore.ReasonRevoked)
		wantErr(t, f.EndHandle(ctx, a3.Handle(), sessionstore.ReasonRevoked), sessionstore.ErrNotFound)
		wantErr(t, f.EndHandle(ctx, sessionstore.NewHandle(), sessionstore.ReasonRevoked), sessionstore.ErrNotFound)

		a4, a5 := login(ann), login(ann)
		n, err := f.EndUser(ctx, "7", sessionstore.ReasonRevoked, a4.Handle())
		if err != nil || n != 2 {
			t.Fatalf("ended %d (%v)", n, err)
		}
		for _, s := range []*sessionstore.Session{a1, a5} {
			_, err = f.Load(ctx, s.ID())
			wantEnded(t, err, sessionstore.ReasonRevoked)
		}
		infos, err = f.List(ctx, "7")
		wantHandles(t, infos, err, a4)
		loaded(t, f, b.ID())
		if err := f.EndHandle(ctx, b.Handle(), "gone"); err == nil {
			t.Fatal("a reason that nobody may give")
		}
	})
}

// A user who is logged in, or replaced, by another application is listed as
// soon as Tandem sees the session.
func TestIndexFollowsOtherApplications(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		app := newStock(t, rdb, plainJSON{})
		id := app.made("visits", 1)
		s := loaded(t, f, id)
		for _, user := range []any{"7", 8} {
			gs := app.load(id)
			gs.Values["user.id"] = user
			app.save(gs)
			s = loaded(t, f, id)
		}
		infos, err := f.List(ctx, "8")
		wantHandles(t, infos, err, s)
		infos, err = f.List(ctx, "7")
		wantHandles(t, infos, err)

		// Not seen by Tandem yet: revoking the former user's does not hit it.
		gs := app.load(id)
		gs.Values["user.id"] = "9"
		app.save(gs)
		n, err := f.EndUser(ctx, "8", sessionstore.ReasonRevoked, "")
		if err != nil || n != 0 {
			t.Fatalf("ended %d (%v)", n, err)
		}
		infos, err = f.List(ctx, "9")
		wantHandles(t, infos, err, s)
	})
}

func TestUserIDs(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		f := factory(t, rdb, sessionstore.Config{})
		for value, want := range map[string]string{
			`"ann"`: "ann", `7`: "7", `7.0`: "7", `7e2`: "700", `9007199254740993`: "9007199254740993",
			`-3`: "-3", `7.5`: "", `true`: "", `null`: "", `{"id":7}`: "", `""`: "", `1e400`: "",
		} {
			id := sessionstore.NewID()
			must(t, rdb.Set(t.Context(), "session:"+id, `{"user.id":`+value+`}`, time.Hour).Err())
			if got := loaded(t, f, id).UserID(); got != want {
				t.Errorf("user.id %s is %q, want %q", value, got, want)
			}
		}
	})
}

func TestTickets(t *testing.T) {
	each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		f := factory(t, rdb, sessionstore.Config{})
		s := created(t, f)
		ticket, life, err := f.IssueTicket(ctx, s)
		must(t, err)
		if life != 30*time.Second || strings.Contains(ticket, s.Handle()) {
			t.Fatalf("%s, %s", ticket, life)
		}
		must(t, s.Rotate(ctx, nil))
		id, err := f.RedeemTicket(ctx, ticket)
		must(t, err)
		if id != s.ID() {
			t.Fatal("another session")
		}
		for _, wrong := range []string{ticket, "", "x", strings.Repeat("A", 1000)} {
			_, err = f.RedeemTicket(ctx, wrong)
			wantErr(t, err, sessionstore.ErrNotFound)
		}
		ticket, _, err = f.IssueTicket(ctx, s)
		must(t, err)
		must(t, s.Destroy(ctx, sessionstore.ReasonLogout))
		if _, err = f.RedeemTicket(ctx, ticket); err == nil {
			t.Fatal("a ticket for an ended session")
		}
		_, _, err = f.IssueTicket(ctx, f.New())
		wantErr(t, err, sessionstore.ErrNotFound)
	})
}
