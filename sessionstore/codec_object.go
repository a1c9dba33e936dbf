package sessionstore

import (
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"strings"
)

// jsonObject is where in an object's text its members are.
type jsonObject struct {
	raw     string // empty: there is no object
	members []jsonMember
}

// jsonMember says where a name begins and ends, without its quotes, and its
// value. No Redis string is longer than that.
type jsonMember struct {
	name, nameEnd, value, valueEnd uint32
	escaped                        bool // the name
}

// splitObject finds the members of a JSON object without decoding them. It
// accepts what encoding/json does. Of a name that occurs more than once the
// last value counts, in the first one's place, as in every decoder of Go.
func splitObject(raw string) (jsonObject, error) {
	t := jsonText{s: raw}
	t.space()
	if !t.take('{') {
		return jsonObject{}, errNotAnObject
	}
	o := jsonObject{raw: raw, members: make([]jsonMember, 0, min(strings.Count(raw, ",")+1, 2*few))}
	seen := seenNames{}
	ok := t.members('}', func() bool {
		var m jsonMember
		begin := t.at
		if !t.str() {
			return false
		}
		m.name, m.nameEnd, m.escaped = uint32(begin+1), uint32(t.at-1), t.escaped
		if t.space(); !t.take(':') {
			return false
		}
		t.space()
		m.value = uint32(t.at)
		if !t.value(1) {
			return false
		}
		m.valueEnd = uint32(t.at)
		o.members = append(o.members, m)
		seen.settle(&o)
		return true
	})
	if t.space(); !ok || t.at != len(raw) {
		return jsonObject{}, errNotAnObject
	}
	return o, nil
}

func (o *jsonObject) quoted(i int) string { return o.raw[o.members[i].name-1 : o.members[i].nameEnd+1] }
func (o *jsonObject) value(i int) string  { return o.raw[o.members[i].value:o.members[i].valueEnd] }

// name decodes a member's name. One without escapes is taken as it is,
// invalid UTF-8 too: two names that differ stay two.
func (o *jsonObject) name(i int) string {
	if m := &o.members[i]; !m.escaped {
		return o.raw[m.name:m.nameEnd]
	}
	return unescaped(o.quoted(i))
}

// unescaped decodes a valid JSON string.
func unescaped(quoted string) (text string) {
	_ = json.Unmarshal([]byte(quoted), &text) // never fails
	return text
}

// find returns the place of the member with this name, -1 if there is none.
func (o *jsonObject) find(k key) int {
	if k.other != nil {
		return -1
	}
	for i := range o.members {
		m := &o.members[i]
		if !m.escaped && o.raw[m.name:m.nameEnd] == k.name || m.escaped && o.name(i) == k.name {
			return i
		}
	}
	return -1
}

// few is how many attributes an ordinary session has at most.
const few = 16

// seenNames finds a name again: linearly while there are few, through a map
// when a client has made them many.
type seenNames struct{ byName map[string]int }

// settle puts the last member of o in the place of an earlier one that has
// the same name.
func (s *seenNames) settle(o *jsonObject) {
	last := len(o.members) - 1
	if i := s.index(o, last); i < last {
		o.members[i] = o.members[last]
		o.members = o.members[:last]
	}
}

// index returns the place of the first member with the name of the last.
func (s *seenNames) index(o *jsonObject, last int) int {
	name := o.name(last)
	if last < few {
		return o.find(named(name))
	}
	if s.byName == nil {
		s.byName = make(map[string]int, 4*few)
		for i := range last {
			s.byName[o.name(i)] = i
		}
	}
	if i, ok := s.byName[name]; ok {
		return i
	}
	s.byName[name] = last
	return last
}

// jsonText is a place in a text that may be JSON. Its methods go past what
// they name and report whether it was there; after a false the place is of
// no use.
type jsonText struct {
	s       string
	at      int
	escaped bool // the string that str went past holds escapes
}

// deepest is how deep values may be nested, as in encoding/json.
const deepest = 10_000

// next is the byte that follows, zero at the end, where no JSON has one.
func (t *jsonText) next() byte {
	if t.at < len(t.s) {
		return t.s[t.at]
	}
	return 0
}

func (t *jsonText) take(c byte) bool {
	if t.next() != c {
		return false
	}
	t.at++
	return true
}

func (t *jsonText) space() {
	for {
		switch t.next() {
		case ' ', '\n', '\t', '\r':
			t.at++
		default:
			return
		}
	}
}

// members goes past the rest of an object or array, up to its end.
func (t *jsonText) members(end byte, member func() bool) bool {
	if t.space(); t.take(end) {
		return true
	}
	for {
		if t.space(); !member() {
			return false
		}
		switch t.space(); {
		case t.take(','):
		case t.take(end):
			return true
		default:
			return false
		}
	}
}

// value goes past any value inside depth others.
func (t *jsonText) value(depth int) bool {
	switch c := t.next(); c {
	case '"':
		return t.str()
	case '{':
		t.at++
		return depth < deepest && t.members('}', func() bool {
			if !t.str() {
				return false
			}
			if t.space(); !t.take(':') {
				return false
			}
			t.space()
			return t.value(depth + 1)
		})
	case '[':
		t.at++
		return depth < deepest && t.members(']', func() bool { return t.value(depth + 1) })
	case 't':
		return t.word("true")
	case 'f':
		return t.word("false")
	case 'n':
		return t.word("null")
	default:
		return t.number()
	}
}

func (t *jsonText) word(w string) bool {
	if !strings.HasPrefix(t.s[t.at:], w) {
		return false
	}
	t.at += len(w)
	return true
}

func (t *jsonText) str() bool {
	if !t.take('"') {
		return false
	}
	t.escaped = false
	for {
		t.at = plainUntil(t.s, t.at)
		switch t.next() {
		case '"':
			t.at++
			return true
		case '\\':
			t.at++
			t.escaped = true
			if !t.escape() {
				return false
			}
		default: // a control character, or the end
			return false
		}
	}
}

// plainUntil returns the place of the first byte from at on that does not
// stand for itself in a JSON string: a quote, a backslash or a control
// character. Most of a session is read here, eight bytes at a time: in each of
// the three sums the lowest byte that is looked for has its high bit set, and
// no byte below it has.
func plainUntil(s string, at int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; at+8 <= len(s); at += 8 {
		word := binary.LittleEndian.Uint64([]byte(s[at : at+8]))
		quote, backslash := word^each*'"', word^each*'\\'
		found := ((quote-each)&^quote | (backslash-each)&^backslash | (word-each*' ')&^word) & high
		if found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
	}
	for at < len(s) && s[at] >= ' ' && s[at] != '"' && s[at] != '\\' {
		at++
	}
	return at
}

// escape goes past what follows on a backslash.
func (t *jsonText) escape() bool {
	c := t.next()
	t.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if c := t.next() | 0x20; !isDigit(t.next()) && (c < 'a' || c > 'f') {
				return false
			}
			t.at++
		}
		return true
	}
	return false
}

func (t *jsonText) number() bool {
	t.take('-')
	if !t.take('0') && !t.digits() {
		return false
	}
	if t.take('.') && !t.digits() {
		return false
	}
	if t.take('e') || t.take('E') {
		if !t.take('+') {
			t.take('-')
		}
		return t.digits()
	}
	return true
}

// digits goes past one or more.
func (t *jsonText) digits() bool {
	begin := t.at
	for isDigit(t.next()) {
		t.at++
	}
	return t.at > begin
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
