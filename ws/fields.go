package ws

import (
	"encoding/json"
	"errors"
)

// fields are those of a JSON object, where they stand in its text: a frame is
// looked at once, and of most fields nothing but the place is asked for.
type fields []field

type field struct {
	name  string
	value json.RawMessage
}

var errNotAnObject = errors.New("not a JSON object")

// splitFields finds the fields of the JSON object that data is.
func splitFields(data []byte) (fields, error) {
	if !json.Valid(data) || firstByte(data) != '{' {
		return nil, errNotAnObject
	}
	// What follows counts on data being valid.
	f := make(fields, 0, 6)
	i := skipSpace(data, 0) + 1
	for {
		i = skipSpace(data, i)
		if data[i] == '}' {
			return f, nil
		}
		end := skipString(data, i)
		name := unquote(data[i:end])
		i = skipSpace(data, skipSpace(data, end)+1) // past the colon
		end = skipValue(data, i)
		f = append(f, field{name, json.RawMessage(data[i:end:end])})
		if i = skipSpace(data, end); data[i] == ',' {
			i++
		}
	}
}

// get returns the value of a field, the last one where it stands more than
// once, as encoding/json does.
func (f fields) get(name string) (value json.RawMessage, ok bool) {
	for i := len(f) - 1; i >= 0; i-- {
		if f[i].name == name {
			return f[i].value, true
		}
	}
	return nil, false
}

// unquote decodes a valid JSON string.
func unquote(quoted []byte) string {
	text := quoted[1 : len(quoted)-1]
	for _, b := range text {
		if b == '\\' || b >= 0x80 { // what is not UTF-8 is replaced
			var s string
			_ = json.Unmarshal(quoted, &s) // never fails
			return s
		}
	}
	return string(text)
}

// The following return where what begins at i in valid JSON ends.

func skipSpace(data []byte, i int) int {
	for data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n' {
		i++
	}
	return i
}

func skipString(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func skipValue(data []byte, i int) int {
	switch data[i] {
	case '"':
		return skipString(data, i)
	case '{', '[':
		for depth := 0; ; {
			switch data[i] {
			case '"':
				i = skipString(data, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for ; ; i++ { // a number or a word; the object goes on after it
		switch data[i] {
		case ',', '}', ' ', '\t', '\r', '\n':
			return i
		}
	}
}
