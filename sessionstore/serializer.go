package sessionstore

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/gorilla/sessions"
)

// Serializer turns a session's Values into the stored bytes and back. It is
// redisstore's SessionSerializer, so that the one an existing application
// uses fits here too. Both methods may be called concurrently.
type Serializer interface {
	Serialize(*sessions.Session) ([]byte, error)
	Deserialize([]byte, *sessions.Session) error
}

// JSON stores one flat object, attribute names as its keys. Numbers decode
// to float64 as encoding/json does it, but for those that float64 would
// change (integers beyond 2^53): they decode to json.Number.
func JSON() Serializer { return jsonSerializer{} }

// Gob is redisstore's default: the map of values in encoding/gob. Every
// process that shares the sessions must have registered the types of all
// values, other than Go's basic types and slices of them.
func Gob() Serializer { return gobSerializer{} }

// textDecoder has Deserialize for a text, which need not be copied.
type textDecoder interface {
	decode(raw string, s *sessions.Session) error
}

type gobSerializer struct{}

func (gobSerializer) Serialize(s *sessions.Session) ([]byte, error) {
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(s.Values); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (g gobSerializer) Deserialize(b []byte, s *sessions.Session) error {
	return g.decode(string(b), s)
}

func (gobSerializer) decode(raw string, s *sessions.Session) error {
	if values, ok := readGob(raw); ok {
		if s.Values == nil {
			s.Values = values
		} else {
			maps.Copy(s.Values, values)
		}
		return nil
	}
	return gob.NewDecoder(strings.NewReader(raw)).Decode(&s.Values)
}

type jsonSerializer struct{}

func (jsonSerializer) Serialize(s *sessions.Session) ([]byte, error) {
	flat := make(map[string]any, len(s.Values))
	for key, v := range s.Values {
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("a JSON session cannot hold the attribute %v: its name is a %T", key, key)
		}
		flat[name] = v
	}
	return json.Marshal(flat)
}

func (j jsonSerializer) Deserialize(b []byte, s *sessions.Session) error {
	return j.decode(string(b), s)
}

func (jsonSerializer) decode(raw string, s *sessions.Session) error {
	object, err := splitObject(raw)
	if err != nil {
		return err
	}
	if s.Values == nil {
		s.Values = make(map[any]any, len(object.members))
	}
	for i := range object.members {
		if s.Values[object.name(i)], err = decodeJSON(object.value(i)); err != nil {
			return err
		}
	}
	return nil
}

// decodeJSON decodes one value without changing any number in it. What most
// attributes are, plain texts and numbers, it decodes by itself.
func decodeJSON(raw string) (any, error) {
	if t := (jsonText{s: raw}); t.value(0) && t.at == len(raw) {
		if s, ok := plainString(raw); ok {
			return s, nil
		}
		switch c := raw[0]; {
		case c == '-' || isDigit(c):
			return plainNumber(json.Number(raw)), nil
		case c == 't' || c == 'f':
			return c == 't', nil
		case c == 'n':
			return nil, nil
		}
	}
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return plainNumbers(v), nil
}

// plainNumbers replaces every json.Number in v with a float64, but for the
// integers that this would change.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return plainNumber(v)
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plainNumbers(v[k])
		}
	}
	return v
}

func plainNumber(n json.Number) any {
	f, err := n.Float64()
	if err != nil { // beyond float64
		return n
	}
	integer := !strings.ContainsAny(n.String(), ".eE")
	if integer && n.String() != strconv.FormatFloat(f, 'f', -1, 64) {
		return n
	}
	return f
}

var errNotAnObject = errors.New("not a JSON object")
