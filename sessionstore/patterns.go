package sessionstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Patterns is a set of attribute names such as "user.name" and "chat.*". A
// star stands for any run of characters, dots too. The zero value matches
// nothing. It is safe for concurrent use.
type Patterns struct{ parts [][]string } // each pattern cut at its stars

// ParsePatterns compiles patterns. An empty one, and one that asks for
// reserved names only, is an error.
func ParsePatterns(patterns []string) (Patterns, error) {
	var p Patterns
	for _, pattern := range patterns {
		switch {
		case pattern == "":
			return Patterns{}, errors.New("empty attribute pattern")
		case reserved(pattern):
			return Patterns{}, fmt.Errorf("attribute pattern %q: %w", pattern, ErrReserved)
		}
		p.parts = append(p.parts, strings.Split(pattern, "*"))
	}
	return p, nil
}

// Match reports whether a pattern matches name. No pattern matches a
// reserved name.
func (p Patterns) Match(name string) bool {
	return !reserved(name) && slices.ContainsFunc(p.parts, func(parts []string) bool {
		return matchParts(parts, name)
	})
}

// matchParts reports whether name is parts with anything in between. Taking
// each middle part at its first place is enough: it leaves most to the rest.
func matchParts(parts []string, name string) bool {
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok || len(parts) == 1 {
		return ok && name == ""
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return strings.HasSuffix(name, parts[last])
}
