package sessionstore

import (
	"bytes"
	"encoding/json"
	"strings"
)

// splitObject cuts a JSON object into its members without decoding their
// values: the cells are json.RawMessage pointing into raw. Of a
// name that occurs more than once the last value counts, as in every decoder
// of Go.
func splitObject(raw []byte) (attributes, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] != '{' || !json.Valid(raw) {
		return nil, errNotAnObject
	}
	attrs := make(attributes, 0, min(bytes.Count(raw, []byte{':'}), 2*few))
	seen := seenNames{}
	// From here on raw is known to be valid, so that every scan ends.
	for at := skipSpace(raw, 1); raw[at] != '}'; {
		end := skipString(raw, at)
		name := raw[at:end:end]
		at = skipSpace(raw, skipSpace(raw, end)+1) // past the colon
		end = skipValue(raw, at)
		a := attribute{key: memberName(name), name: name, cell: json.RawMessage(raw[at:end:end])}
		if i, again := seen.index(attrs, a.key.(string)); again {
			attrs[i] = a
		} else {
			attrs = append(attrs, a)
		}
		if at = skipSpace(raw, end); raw[at] == ',' {
			at = skipSpace(raw, at+1)
		}
	}
	return attrs, nil
}

// few is how many attributes an ordinary session has at most.
const few = 16

// seenNames finds a name again: linearly while there are few, through a map
// when a client has made them many.
type seenNames struct{ byName map[string]int }

func (s *seenNames) index(attrs attributes, name string) (int, bool) {
	if len(attrs) < few {
		for i := range attrs {
			if attrs[i].key == any(name) {
				return i, true
			}
		}
		return 0, false
	}
	if s.byName == nil {
		s.byName = make(map[string]int, 4*few)
		for i := range attrs {
			s.byName[attrs[i].key.(string)] = i
		}
	}
	i, ok := s.byName[name]
	if !ok {
		s.byName[name] = len(attrs)
	}
	return i, ok
}

// memberName decodes a member's name. One without escapes is taken as it is,
// invalid UTF-8 too: two names that differ stay two.
func memberName(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		var s string
		if json.Unmarshal(quoted, &s) == nil {
			return s
		}
	}
	return string(quoted[1 : len(quoted)-1])
}

func skipSpace(b []byte, at int) int {
	for b[at] == ' ' || b[at] == '\n' || b[at] == '\t' || b[at] == '\r' {
		at++
	}
	return at
}

// skipString returns the place after the string that begins at b[at].
func skipString(b []byte, at int) int {
	for at++; b[at] != '"'; at++ {
		if b[at] == '\\' {
			at++
		}
	}
	return at + 1
}

// skipValue returns the place after the value that begins at b[at].
func skipValue(b []byte, at int) int {
	depth := 0
	for {
		switch b[at] {
		case '"':
			at = skipString(b, at)
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\n', '\t', '\r':
			at++
		default: // number, true, false, null
			for strings.IndexByte(",]} \n\t\r", b[at]) < 0 {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
}
