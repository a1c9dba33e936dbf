package sessionstore_test

import (
	"strings"
	"testing"

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
