package sessionstore

import (
	"fmt"
	"strconv"
	"strings"
)

// deepestSent is how deep a value that comes as JSON may be nested. PHP reads
// 512 levels, Python about a thousand.
const deepestSent = 256

// checkPortable refuses what JSON allows and decoders of other languages do
// not, for the whole session then: nesting without a bound, numbers that no
// float64 holds, halves of a surrogate pair. What a page sends must not lock
// the applications that share the session out of it. The error wraps ErrValue.
//
// raw is valid JSON, which has backslashes in strings only.
func checkPortable(raw string) error {
	depth, text := 0, false
	for at := 0; at < len(raw); at++ {
		switch c := raw[at]; {
		case c == '"':
			text = !text
		case c == '\\':
			size := escapeSize(raw[at:])
			if size == 0 {
				return fmt.Errorf("%w: half of a surrogate pair", ErrValue)
			}
			at += size - 1
		case text:
		case c == '{', c == '[':
			if depth++; depth > deepestSent {
				return fmt.Errorf("%w: nested deeper than %d", ErrValue, deepestSent)
			}
		case c == '}', c == ']':
			depth--
		case c == '-', isDigit(c):
			size := numberSize(raw[at:])
			if _, err := strconv.ParseFloat(raw[at:at+size], 64); err != nil {
				return fmt.Errorf("%w: number out of range", ErrValue)
			}
			at += size - 1
		}
	}
	return nil
}

// escapeSize is the length of the escape, or pair of escapes, that s begins
// with; zero for half of a pair.
func escapeSize(s string) int {
	unit, ok := utf16Escape(s)
	switch {
	case !ok:
		return 2
	case unit < 0xd800 || unit > 0xdfff:
		return 6
	case unit > 0xdbff:
		return 0
	}
	if low, ok := utf16Escape(s[6:]); !ok || low < 0xdc00 || low > 0xdfff {
		return 0
	}
	return 12
}

// utf16Escape reads the \uXXXX that s begins with, if it does.
func utf16Escape(s string) (unit uint64, ok bool) {
	if len(s) < 6 || s[:2] != `\u` {
		return 0, false
	}
	unit, err := strconv.ParseUint(s[2:6], 16, 16)
	return unit, err == nil
}

// numberSize is the length of the number that s begins with.
func numberSize(s string) int {
	return len(s) - len(strings.TrimLeft(s, "+-.0123456789eE"))
}
