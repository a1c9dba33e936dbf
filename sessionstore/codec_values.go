package sessionstore

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"

	"github.com/gorilla/sessions"
)

// valueCodec works through any Serializer: the whole value is decoded,
// changed and encoded again. Cells are Go values. As a decoded value may be
// anything, and a caller may reach into it, merge decodes its own.
type valueCodec struct{ serializer Serializer }

func (c valueCodec) decode(raw []byte) (attributes, error) {
	values, err := c.values(raw)
	if err != nil {
		return nil, err
	}
	attrs := make(attributes, 0, len(values))
	for key, v := range values {
		attrs = append(attrs, attribute{key: key, cell: v})
	}
	return attrs, nil
}

// values decodes raw. Serializers panic on some inputs (gob on a key that
// cannot be hashed): that is a value that cannot be decoded, too.
func (c valueCodec) values(raw []byte) (_ map[any]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrUndecodable, p)
		}
	}()
	s := sessions.NewSession(nil, "")
	if err := c.serializer.Deserialize(raw, s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return s.Values, nil
}

func (c valueCodec) merge(raw []byte, _ attributes, change changes) (_ []byte, err error) {
	values := map[any]any{}
	if raw != nil {
		if values, err = c.values(raw); err != nil {
			return nil, err
		}
	}
	for key, cell := range change {
		if isDeleted(cell) {
			delete(values, key)
		} else {
			values[key] = cell
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrValue, p)
		}
	}()
	s := sessions.NewSession(nil, "")
	maps.Copy(s.Values, values)
	if raw, err = c.serializer.Serialize(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return raw, nil
}

func (valueCodec) cell(_, v any) (any, error) {
	if raw, ok := v.(json.RawMessage); ok {
		decoded, err := decodeJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrValue, err)
		}
		return basic(decoded)
	}
	return v, nil
}

func (valueCodec) value(cell any) (any, bool) { return cell, true }

func (valueCodec) json(cell any) (json.RawMessage, bool) {
	raw, err := json.Marshal(cell)
	return raw, err == nil
}

func (valueCodec) text(cell any) string { return asText(cell) }

func (valueCodec) equal(a, b any) bool { return reflect.DeepEqual(a, b) }

// basic turns decoded JSON into types that every gob process knows without
// registering them: an application that shares the session must not be locked
// out of it by what a page sent. Objects have no such type.
func basic(v any) (any, error) {
	switch v := v.(type) {
	case float64:
		if i := int(v); float64(i) == v && math.Abs(v) < 1<<53 {
			return i, nil
		}
	case json.Number:
		i, err := strconv.Atoi(v.String())
		if err != nil {
			return nil, fmt.Errorf("%w: number out of range", ErrValue)
		}
		return i, nil
	case []any:
		for i := range v {
			var err error
			if v[i], err = basic(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		return nil, fmt.Errorf("%w: only JSON sessions hold objects", ErrValue)
	}
	return v, nil
}
