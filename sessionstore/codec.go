package sessionstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// attribute is one decoded attribute of a session. What its cell holds is
// the codec's choice: the bytes of the value for JSON, the Go value else.
type attribute struct {
	key  any    // a string but for what gob applications may use
	name []byte // JSON: the key as it is written, quotes and escapes included
	cell any
}

// attributes are in the order of the stored value, each key once. They are
// never modified.
type attributes []attribute

// find is linear: sessions have few attributes, and each is looked up at
// most a handful of times.
func (as attributes) find(key any) (cell any, ok bool) {
	for i := range as {
		if as[i].key == key {
			return as[i].cell, true
		}
	}
	return nil, false
}

// changes are the cells that a working copy has set, by key; deleted{} for
// the attributes that it deleted.
type changes map[any]any

type deleted struct{}

func isDeleted(cell any) bool {
	_, ok := cell.(deleted)
	return ok
}

// codec reads and merges stored values. It is safe for concurrent use.
type codec interface {
	// decode reads a stored value, which nobody modifies from then on. Its
	// error always wraps ErrUndecodable.
	decode(raw []byte) (attributes, error)

	// merge applies c to a stored value, nil for an empty one, and to what
	// it was decoded to. What c does not name stays as it is.
	merge(raw []byte, decoded attributes, c changes) ([]byte, error)

	// cell turns a caller's value into what the attribute key holds;
	// json.RawMessage is taken as the JSON that it is. The error wraps
	// ErrValue.
	cell(key, v any) (any, error)

	// value and json are the two ways to look at a cell. The caller does
	// not modify what it gets.
	value(cell any) (v any, ok bool)
	json(cell any) (json.RawMessage, bool)

	// text is asText of the value.
	text(cell any) string

	equal(a, b any) bool
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

func (jsonCodec) decode(raw []byte) (attributes, error) {
	attrs, err := splitObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return attrs, nil
}

func (jsonCodec) merge(raw []byte, attrs attributes, c changes) ([]byte, error) {
	out := make([]byte, 0, len(raw)+128)
	out = append(out, '{')
	member := func(name, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	added := maps.Clone(c)
	for _, a := range attrs {
		cell, changed := c[a.key]
		switch {
		case !changed:
			member(a.name, a.cell.(json.RawMessage))
		case !isDeleted(cell):
			member(a.name, cell.(json.RawMessage))
		}
		delete(added, a.key)
	}
	maps.DeleteFunc(added, func(_, cell any) bool { return isDeleted(cell) })
	for _, name := range slices.SortedFunc(maps.Keys(added), byName) {
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("%w: attribute name: %w", ErrValue, err)
		}
		member(quoted, added[name].(json.RawMessage))
	}
	return append(out, '}'), nil
}

// byName orders the keys of a JSON session, which are all strings.
func byName(a, b any) int { return strings.Compare(a.(string), b.(string)) }

func (jsonCodec) cell(key, v any) (any, error) {
	if _, ok := key.(string); !ok {
		return nil, fmt.Errorf("%w: a name that is a %T", ErrValue, key)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return json.RawMessage(raw), nil
}

func (jsonCodec) value(cell any) (any, bool) {
	v, err := decodeJSON(cell.(json.RawMessage))
	return v, err == nil
}

func (jsonCodec) json(cell any) (json.RawMessage, bool) { return cell.(json.RawMessage), true }

// text spares the decoder what is in every session: strings without escapes.
func (j jsonCodec) text(cell any) string {
	raw := cell.(json.RawMessage)
	if raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1])
	}
	v, _ := j.value(cell)
	return asText(v)
}

func (jsonCodec) equal(a, b any) bool { return equalJSON(a.(json.RawMessage), b.(json.RawMessage)) }

// equalJSON compares two valid JSON values by meaning: spaces, escapes and
// the order of members do not count, the digits of numbers do.
func equalJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	decode := func(raw json.RawMessage) (v any) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if dec.Decode(&v) != nil {
			return raw // equal to nothing but itself
		}
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}
