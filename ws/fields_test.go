package ws

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Fields are those that encoding/json finds.
func FuzzSplitFields(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { "a" : 1 , "b":[{"]":"}"}] }`, `{"a":"\"","a":null}`, `{"\u0061":"x","b\\":-1.5e3}`, `{"a":{"b":{}},"":""}`,
		"{\"\xff\":true}", `[]`, `{"a":1}{}`, `{"a":1,}`, `"`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want map[string]json.RawMessage
		wrong := json.Unmarshal(data, &want)
		got, err := splitFields(data)
		if (wrong == nil && want != nil) != (err == nil) {
			t.Fatalf("%v, encoding/json says %v", err, wrong)
		}
		if err != nil {
			return
		}
		for _, field := range got {
			if _, ok := want[field.name]; !ok {
				t.Errorf("%q is no field", field.name)
			}
		}
		for name, value := range want {
			if found, ok := got.get(name); !ok || !bytes.Equal(found, value) {
				t.Errorf("%q is %q, not %q", name, found, value)
			}
		}
	})
}

// A name is quoted as encoding/json quotes it.
func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "ada", `a"b\`, "<&>", "\x7f\x00", "ä", "\u2028", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString([]byte("x"), s); string(got) != "x"+string(want) {
			t.Errorf("%q", got)
		}
	})
}
