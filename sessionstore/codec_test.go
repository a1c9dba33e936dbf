package sessionstore

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/sessions"
)

func TestMergeJSON(t *testing.T) {
	set := func(s string) cell { return cell{raw: s} }
	gone := cell{deleted: true}
	for name, c := range map[string]struct {
		stored string
		change changes
		want   string
	}{
		"nothing stored":   {"", changes{named("b"): set("2"), named("a"): set("1")}, `{"a":1,"b":2}`},
		"nothing changed":  {`{"a": 1.0 , "b":"\u0041"}`, nil, `{"a":1.0,"b":"\u0041"}`},
		"in place":         {`{"a":1,"b":2,"c":3}`, changes{named("b"): set(`"x"`)}, `{"a":1,"b":"x","c":3}`},
		"delete":           {`{"a":1,"b":2}`, changes{named("a"): gone, named("z"): gone}, `{"b":2}`},
		"delete all":       {`{"a":1}`, changes{named("a"): gone}, `{}`},
		"last one counts":  {`{"a":1,"b":2,"a":3}`, changes{named("c"): set("4")}, `{"a":3,"b":2,"c":4}`},
		"escaped names":    {`{"\u0061":1}`, changes{named("a"): set("2"), named(`q"`): set("3")}, `{"\u0061":2,"q\"":3}`},
		"braces in string": {`{"a":"}{,\"]","b":[{"c":"]"}]}`, changes{named("d"): set("1")}, `{"a":"}{,\"]","b":[{"c":"]"}],"d":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			var attrs attributes
			if c.stored != "" {
				var err error
				if attrs, err = (jsonCodec{}).decode(c.stored); err != nil {
					t.Fatal(err)
				}
			}
			got, err := jsonCodec{}.merge(c.stored, attrs, c.change)
			if err != nil || got != c.want {
				t.Fatalf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

// Many attributes are a client's doing, and no reason to be slow or wrong.
func TestManyAttributes(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"first":0`)
	for i := range 5000 {
		b.WriteString(`,"` + strings.Repeat("k", i%7) + string(rune('a'+i%26)) + `":1`)
	}
	b.WriteString(`,"first":1}`)
	object, err := splitObject(b.String())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(b.String()), &m); err != nil || len(m) != len(object.members) {
		t.Fatalf("%d attributes, want %d", len(object.members), len(m))
	}
	if i := object.find(named("first")); i != 0 || object.value(i) != "1" {
		t.Fatalf("first is %d", i)
	}
}

// Whatever is stored: it is refused, or a merge changes what it is told to
// and no byte of another value.
func FuzzMergeJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, ` { "a" : [1, {"b":"}"}] , "\u0061":2,"c":"\\\"" } `, `{"n":9007199254740993,"e":1e400}`,
		`[]`, `null`, `{"a":}`, `{"a":1}{}`, `{"long\n":"1234567\"1234567\\\u00e412345678"}`, "{\"a\":\"12345678\x1f\"}", "{\"\xff\":1,\"\xfe\":2}", `{"tandem.sid":"x","user.id":7}`, ``, `{"a":1,}`,
	} {
		f.Add([]byte(s), "a", `"new"`)
	}
	f.Fuzz(func(t *testing.T, stored []byte, name, value string) {
		attrs, err := jsonCodec{}.decode(string(stored))
		var decoded map[string]json.RawMessage
		reference := json.Unmarshal(stored, &decoded)
		if (err == nil) != (reference == nil && decoded != nil) {
			t.Fatalf("decoding %q: %v; encoding/json: %v", stored, err, reference)
		}
		if err != nil || !json.Valid([]byte(value)) {
			return
		}
		c, err := jsonCodec{}.cell(named(name), json.RawMessage(value))
		if errors.Is(err, ErrValue) && checkPortable(value) != nil {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		merged, err := jsonCodec{}.merge(string(stored), attrs, changes{named(name): c})
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(merged)) {
			t.Fatalf("%q with %q became %q", stored, name, merged)
		}
		after, err := jsonCodec{}.decode(merged)
		if err != nil {
			t.Fatal(err)
		}
		for k, was := range attrs.all() {
			got, ok := after.find(k)
			if k.name != name && (!ok || got.raw != was.raw) {
				t.Fatalf("%q: %q became %q", k.name, was.raw, got.raw)
			}
		}
		kept, _ := jsonCodec{}.merge(merged, after, nil)
		if kept != merged {
			t.Fatalf("a merge of nothing made %q of %q", kept, merged)
		}
	})
}

// What a page sends is kept as it is, unless other languages' decoders would
// refuse the whole session for it.
func TestWhatPagesSendIsPortable(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for value, portable := range map[string]bool{
		`9007199254740993`: true, `[-1.5e-3,0,1E+2]`: true, `1e308`: true, `1e-999`: true,
		`1e309`: false, `{"a":[-1e999]}`: false, `"1e999"`: true, `{"1e999":1}`: true,
		`"\ud83d\ude00 \u00e9 \\ud83d \" {"`: true, `"\\\ud83d"`: false, `"\ud83d"`: false, `"\ude00"`: false,
		`"\ud83d\u0041"`: false, `"\ud83d\n"`: false, `{"\ud83d":1}`: false, `"\ud83d\ud83d\ude00"`: false,
		nested(deepestSent): true, nested(deepestSent + 1): false, `"` + nested(2*deepestSent) + `"`: true,
		`[` + nested(deepestSent-1) + `,` + nested(deepestSent-1) + `]`: true,
	} {
		c, err := jsonCodec{}.cell(named("a"), json.RawMessage(value))
		if portable && (err != nil || c.raw != value) || !portable && !errors.Is(err, ErrValue) {
			t.Errorf("%.40s: %.40s, %v", value, c.raw, err)
		}
		if _, err := (valueCodec{Gob()}).cell(named("a"), json.RawMessage(value)); !portable && !errors.Is(err, ErrValue) {
			t.Errorf("gob: %.40s: %v", value, err)
		}
	}
}

// Values of other applications' serializers are decoded or refused, and do
// not bring the process down.
func FuzzDecodeGob(f *testing.F) {
	c := valueCodec{Gob()}
	good, err := c.merge("", attributes{}, changes{named("a"): {v: 1}, keyOf(2): {v: "b"}, named("l"): {v: []any{"x", nil}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Add([]byte{})
	f.Add([]byte(good[:len(good)/2]))
	f.Fuzz(func(t *testing.T, stored []byte) {
		attrs, err := c.decode(string(stored))
		if err != nil {
			return
		}
		merged, err := c.merge(string(stored), attrs, changes{named("tandem.sid"): {v: "x"}})
		if err != nil {
			return
		}
		if _, err := c.decode(merged); err != nil {
			t.Fatal(err)
		}
	})
}

// encodedGob is what redisstore's default serializer stores of values.
func encodedGob(t testing.TB, values map[any]any) string {
	t.Helper()
	raw, err := Gob().Serialize(&sessions.Session{Values: values})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What most sessions hold is read without encoding/gob, and to the same.
func TestReadGob(t *testing.T) {
	for _, v := range []any{
		"", "text", strings.Repeat("long", 100), 0, -1, 1 << 40, math.MinInt64, int64(-7), 1.5, math.Inf(-1), true, false, nil,
		[]byte{}, []byte("bytes"), []string{}, []string{"a", "", strings.Repeat("b", 200)},
	} {
		values := map[any]any{"a": v, "user.name": "Ann", "z": v}
		raw := encodedGob(t, values)
		got, ok := readGob(raw)
		if !ok {
			t.Errorf("%T %v is left to encoding/gob", v, v)
			continue
		}
		wantAsGob(t, raw, got)
		for end := range raw {
			if got, ok := readGob(raw[:end]); ok {
				t.Errorf("of %d bytes %d are enough for %v", len(raw), end, got)
			}
		}
	}
	for name, values := range map[string]map[any]any{
		"a number as a key": {7: "x"}, "another type": {"a": uint8(1)}, "a list of anything": {"a": []any{1}}, "a list of numbers": {"a": []int{1}},
	} {
		if got, ok := readGob(encodedGob(t, values)); ok {
			t.Errorf("%s was read, to %v", name, got)
		}
	}
}

func wantAsGob(t *testing.T, raw string, got map[any]any) {
	t.Helper()
	var want map[any]any
	if err := gob.NewDecoder(strings.NewReader(raw)).Decode(&want); err != nil {
		t.Fatalf("%x was read, to %v; encoding/gob: %v", raw, got, err)
	}
	if got, want := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); got != want { // NaN is no reason to differ
		t.Fatalf("%x: %s; encoding/gob: %s", raw, got, want)
	}
}

// Whatever readGob takes encoding/gob takes as well, for the same.
func FuzzReadGob(f *testing.F) {
	gob.Register([]any{})
	for _, values := range []map[any]any{
		{}, {"a": 1, "b": "x", "c": 1.5, "d": true, "e": nil, "f": []byte("y"), "g": int64(300)},
		{"a": []string{"x", "y"}, "b": []string{}}, {"a": []any{"x", nil}}, {1: "a"},
	} {
		f.Add([]byte(encodedGob(f, values)))
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		if got, ok := readGob(string(stored)); ok {
			wantAsGob(t, string(stored), got)
		}
	})
}

// Every byte ends a run of plain ones exactly if it has to, wherever it is.
func TestPlainUntil(t *testing.T) {
	for _, around := range []string{"x", "!", "#", "[", "]", "\x7f", "\x80", "\xa2", "\xff"} {
		for c := range 256 {
			for at := range 20 {
				s := strings.Repeat(around, at) + string([]byte{byte(c)}) + strings.Repeat(around, 20-at)
				want := len(s)
				if c < ' ' || c == '"' || c == '\\' {
					want = at
				}
				if got := plainUntil(s, 0); got != want {
					t.Fatalf("%q: %d, want %d", s, got, want)
				}
			}
		}
	}
}

func TestPatterns(t *testing.T) {
	p, err := ParsePatterns([]string{"user.name", "chat.*", "*.public", "a*b*c", "*x*"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"user.name": true, "user.names": false, "user.id": false, "chat.": true, "chat.a.b": true, "chat": false,
		"my.public": true, ".public": true, "abc": true, "a1b2b3c": true, "acb": false, "abcd": false,
		"tandem.public": false, "tandem.sid": false, "ox": true, "": false,
	} {
		if p.Match(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
	all, _ := ParsePatterns([]string{"*"})
	if all.Match("tandem.sid") || !all.Match("") || !all.Match("x") {
		t.Error("a lone star")
	}
	for _, wrong := range []string{"", "tandem.*", "tandem.sid"} {
		if _, err := ParsePatterns([]string{wrong}); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
	if (Patterns{}).Match("x") {
		t.Error("no pattern matches")
	}
}

func TestDiff(t *testing.T) {
	raw := func(m map[string]string) map[string]json.RawMessage {
		r := map[string]json.RawMessage{}
		for k, v := range m {
			r[k] = json.RawMessage(v)
		}
		return r
	}
	set, gone := Diff(
		raw(map[string]string{"same": `{"a":1,"b":2}`, "big": "9007199254740993", "x": "1", "y": "1", "z": "1"}),
		raw(map[string]string{"same": `{"b":2, "a":1}`, "big": "9007199254740992", "x": "2", "new": "null"}))
	if got := slices.Sorted(maps.Keys(set)); !slices.Equal(got, []string{"big", "new", "x"}) {
		t.Errorf("set %v", got)
	}
	if !slices.Equal(gone, []string{"y", "z"}) {
		t.Errorf("deleted %v", gone)
	}
}

func TestJSONNumbers(t *testing.T) {
	for in, want := range map[string]any{
		"1": 1.0, "0.1": 0.1, "-0": 0.0, "1e3": 1000.0, "9007199254740992": 9007199254740992.0,
		"9007199254740993": json.Number("9007199254740993"), "1e400": json.Number("1e400"),
		`[1,{"a":9007199254740993}]`: []any{1.0, map[string]any{"a": json.Number("9007199254740993")}},
	} {
		got, err := decodeJSON(in)
		if err != nil || !reflect.DeepEqual(got, want) && got != want {
			t.Errorf("%s is %#v (%v), want %#v", in, got, err, want)
		}
	}
}
