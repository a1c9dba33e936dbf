package sessionstore

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// key is what an attribute is found by: a name, or where other is set, what
// else gob applications use as keys.
type key struct {
	name  string
	other any
}

func named(name string) key { return key{name: name} }

func keyOf(k any) key {
	if name, ok := k.(string); ok {
		return key{name: name}
	}
	return key{other: k}
}

// any is the key in a map of gorilla Values.
func (k key) any() any {
	if k.other != nil {
		return k.other
	}
	return k.name
}

func (k key) reserved() bool { return k.other == nil && reserved(k.name) }

// cell is what an attribute holds, in the one of its fields that the codec
// uses; or in a change, that the attribute goes.
type cell struct {
	raw     string // JSON sessions: the value as it is stored
	v       any    // others: the value
	deleted bool
}

// attributes are those of a stored value, each key once. They are never
// modified. Of a JSON session it is only known where in the value they are:
// each request decodes one, and looks at a few.
type attributes struct {
	json   jsonObject
	values map[any]any // of other sessions
}

// find is linear: sessions have few attributes, and each is looked up at
// most a handful of times.
func (as attributes) find(k key) (c cell, ok bool) {
	if as.json.raw != "" {
		i := as.json.find(k)
		if i < 0 {
			return cell{}, false
		}
		return cell{raw: as.json.value(i)}, true
	}
	v, ok := as.values[k.any()]
	return cell{v: v}, ok
}

// all goes through the attributes, of a JSON session in their order.
func (as attributes) all() iter.Seq2[key, cell] {
	return func(yield func(key, cell) bool) {
		for i := range as.json.members {
			if !yield(named(as.json.name(i)), cell{raw: as.json.value(i)}) {
				return
			}
		}
		for k, v := range as.values {
			if !yield(keyOf(k), cell{v: v}) {
				return
			}
		}
	}
}

// changes are the cells that a working copy has set, and the attributes that
// it has deleted.
type changes map[key]cell

// codec reads and merges stored values. It is safe for concurrent use.
type codec interface {
	// decode reads a stored value. Its error always wraps ErrUndecodable.
	decode(raw string) (attributes, error)

	// merge applies c to a stored value, empty for none, and to what it was
	// decoded to. What c does not name stays as it is.
	merge(raw string, decoded attributes, c changes) (string, error)

	// cell turns a caller's value into what the attribute holds;
	// json.RawMessage is taken as the JSON that it is. The error wraps
	// ErrValue.
	cell(k key, v any) (cell, error)

	// value and json are the two ways to look at a cell. The caller does
	// not modify what it gets.
	value(c cell) (v any, ok bool)
	json(c cell) (json.RawMessage, bool)

	// text is asText of the value.
	text(c cell) string

	equal(a, b cell) bool
}

func newCodec(s Serializer) codec {
	if _, ok := s.(jsonSerializer); ok {
		return jsonCodec{}
	}
	return valueCodec{s}
}

// jsonCodec never decodes an attribute that nobody looks at, and writes the
// others back byte for byte.
type jsonCodec struct{}

func (jsonCodec) decode(raw string) (attributes, error) {
	object, err := splitObject(raw)
	if err != nil {
		return attributes{}, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return attributes{json: object}, nil
}

func (jsonCodec) merge(raw string, attrs attributes, c changes) (string, error) {
	var out strings.Builder
	out.Grow(len(raw) + 128)
	out.WriteByte('{')
	member := func(quoted, value string) {
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.WriteString(quoted)
		out.WriteByte(':')
		out.WriteString(value)
	}
	added := maps.Clone(c)
	for i := range attrs.json.members {
		k, quoted := named(attrs.json.name(i)), attrs.json.quoted(i)
		change, changed := c[k]
		switch {
		case !changed:
			member(quoted, attrs.json.value(i))
		case !change.deleted:
			member(quoted, change.raw)
		}
		delete(added, k)
	}
	maps.DeleteFunc(added, func(_ key, c cell) bool { return c.deleted })
	for _, k := range slices.SortedFunc(maps.Keys(added), func(a, b key) int { return strings.Compare(a.name, b.name) }) {
		quoted, err := json.Marshal(k.name)
		if err != nil {
			return "", fmt.Errorf("%w: attribute name: %w", ErrValue, err)
		}
		member(string(quoted), added[k].raw)
	}
	out.WriteByte('}')
	return out.String(), nil
}

func (jsonCodec) cell(k key, v any) (cell, error) {
	if k.other != nil {
		return cell{}, fmt.Errorf("%w: a name that is a %T", ErrValue, k.other)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return cell{}, fmt.Errorf("%w: %w", ErrValue, err)
	}
	if _, sent := v.(json.RawMessage); sent {
		if err := checkPortable(string(raw)); err != nil {
			return cell{}, err
		}
	}
	return cell{raw: string(raw)}, nil
}

func (jsonCodec) value(c cell) (any, bool) {
	v, err := decodeJSON(c.raw)
	return v, err == nil
}

func (jsonCodec) json(c cell) (json.RawMessage, bool) { return json.RawMessage(c.raw), true }

// text spares the decoder what is in every session.
func (j jsonCodec) text(c cell) string {
	if s, ok := plainString(c.raw); ok {
		return s
	}
	v, _ := j.value(c)
	return asText(v)
}

// plainString returns the text of a JSON string that holds no escapes.
func plainString(raw string) (string, bool) {
	if raw[0] != '"' || strings.IndexByte(raw, '\\') >= 0 || !utf8.ValidString(raw) {
		return "", false
	}
	return raw[1 : len(raw)-1], true
}

func (jsonCodec) equal(a, b cell) bool { return equalJSON(a.raw, b.raw) }

// plainScalar reports whether a valid JSON value can be written in this way
// only.
func plainScalar(raw string) bool {
	switch raw[0] {
	case '{', '[', '"':
		return false
	}
	return true
}

// equalJSON compares two valid JSON values by meaning: spaces, escapes and
// the order of members do not count, the digits of numbers do.
func equalJSON(a, b string) bool {
	if a == b {
		return true
	}
	if plainScalar(a) || plainScalar(b) {
		return false
	}
	decode := func(raw string) (v any) {
		dec := json.NewDecoder(strings.NewReader(raw))
		dec.UseNumber()
		if dec.Decode(&v) != nil {
			return &raw // equal to nothing
		}
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}
