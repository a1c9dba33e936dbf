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

func (c valueCodec) decode(raw string) (attributes, error) {
	values, err := c.values(raw)
	if err != nil {
		return attributes{}, err
	}
	return attributes{values: values}, nil
}

// values decodes raw. Serializers panic on some inputs (gob on a key that
// cannot be hashed): that is a value that cannot be decoded, too.
func (c valueCodec) values(raw string) (_ map[any]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrUndecodable, p)
		}
	}()
	s := &sessions.Session{}
	if own, ok := c.serializer.(textDecoder); ok {
		err = own.decode(raw, s)
	} else {
		s.Values = map[any]any{}
		err = c.serializer.Deserialize([]byte(raw), s)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	return s.Values, nil
}

func (c valueCodec) merge(raw string, _ attributes, change changes) (_ string, err error) {
	values := map[any]any{}
	if raw != "" {
		if values, err = c.values(raw); err != nil {
			return "", err
		}
	}
	for k, cell := range change {
		if cell.deleted {
			delete(values, k.any())
		} else {
			values[k.any()] = cell.v
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrValue, p)
		}
	}()
	s := sessions.NewSession(nil, "")
	maps.Copy(s.Values, values)
	serialized, err := c.serializer.Serialize(s)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrValue, err)
	}
	return string(serialized), nil
}

func (valueCodec) cell(_ key, v any) (cell, error) {
	if raw, ok := v.(json.RawMessage); ok {
		decoded, err := decodeJSON(string(raw))
		if err != nil {
			return cell{}, fmt.Errorf("%w: %w", ErrValue, err)
		}
		if err := checkPortable(string(raw)); err != nil {
			return cell{}, err
		}
		v, err = basic(decoded)
		return cell{v: v}, err
	}
	return cell{v: v}, nil
}

func (valueCodec) value(c cell) (any, bool) { return c.v, true }

func (valueCodec) json(c cell) (json.RawMessage, bool) {
	raw, err := json.Marshal(withEmpty(c.v))
	return raw, err == nil
}

// withEmpty returns v with an empty list for each that is nil: gob does not
// tell the two apart, JSON does.
func withEmpty(v any) any {
	switch list := v.(type) {
	case nil:
		return nil
	case []any:
		filled := make([]any, len(list))
		for i := range list {
			filled[i] = withEmpty(list[i])
		}
		return filled
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Slice && r.IsNil() {
		return reflect.MakeSlice(r.Type(), 0, 0).Interface()
	}
	return v
}

func (valueCodec) text(c cell) string { return asText(c.v) }

func (valueCodec) equal(a, b cell) bool { return reflect.DeepEqual(a.v, b.v) }

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
