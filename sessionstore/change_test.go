package sessionstore_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-6230208e/tandem/internal/redistest"
	"github.com/seed-6230208e/tandem/sessionstore"
)

func FuzzParseChange(f *testing.F) {
	for _, body := range []string{`{"set":{"a":1},"delete":["b"]}`, `null`, `{}{}`, `{"set":[]}`, `{"SET":{}}`, `{"set":{"user.id":null}}`, ``} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		change, err := sessionstore.ParseChange(body)
		if err != nil && (change.Set != nil || change.Delete != nil) {
			t.Errorf("%q: half a change with %v", body, err)
		}
		if err != nil && strings.Contains(err.Error(), "json:") {
			t.Errorf("%q: %v", body, err)
		}
		_ = change.Kind()
	})
}

func TestChangeKind(t *testing.T) {
	for text, want := range map[string]sessionstore.ChangeKind{
		`{}`: sessionstore.ChangeWrite, `{"set":{"user.name":"x"}}`: sessionstore.ChangeWrite,
		`{"set":{"user.id":"7"}}`: sessionstore.ChangeLogin, `{"set":{"user.id": null }}`: sessionstore.ChangeLogout,
		`{"delete":["a","user.id"]}`: sessionstore.ChangeLogout,
	} {
		c, err := sessionstore.ParseChange([]byte(text))
		if err != nil || c.Kind() != want {
			t.Errorf("%s: %s, %v", text, c.Kind(), err)
		}
	}
}

// A session that cannot be decoded is not written, but it can be ended: by its
// client's own logout, which needs nothing of what is in it.
func TestChangeOfWhatCannotBeDecoded(t *testing.T) {
	redistest.Each(t, func(t *testing.T, r *redistest.Server) {
		rdb := r.Client(t)
		f, err := sessionstore.New(rdb, sessionstore.Config{})
		if err != nil {
			t.Fatal(err)
		}
		store, err := sessionstore.NewStore(f, sessionstore.StoreConfig{})
		if err != nil {
			t.Fatal(err)
		}
		id := sessionstore.NewID()
		if err := rdb.Set(t.Context(), "session:"+id, "spoilt", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		change := func(text string) (*httptest.ResponseRecorder, error) {
			c, err := sessionstore.ParseChange([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			req := httptest.NewRequest(http.MethodGet, "/", nil)
			req.AddCookie(&http.Cookie{Name: "tandem", Value: id})
			w := httptest.NewRecorder()
			return w, store.Change(w, req, c)
		}
		w, err := change(`{"set":{"a":1}}`)
		if !errors.Is(err, sessionstore.ErrUndecodable) || w.Header().Get("Set-Cookie") != "" || rdb.Get(t.Context(), "session:"+id).Val() != "spoilt" {
			t.Errorf("a write: %v", err)
		}
		w, err = change(`{"delete":["user.id"]}`)
		if err != nil || !strings.Contains(w.Header().Get("Set-Cookie"), "Max-Age=0") || rdb.Exists(t.Context(), "session:"+id).Val() != 0 {
			t.Errorf("a logout: %v", err)
		}
	})
}
