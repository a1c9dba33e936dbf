package access

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-6230208e/tandem/ws"
)

// byAttribute looks for the document among the patterns in the session.
func (r *Rule) byAttribute(a ws.Access) error {
	name := r.attributes[a.Action]
	value, ok := a.Session.JSON(name)
	if !ok || name == "" {
		return fmt.Errorf("%w: the session has no attribute %s", ws.ErrForbidden, name)
	}
	patterns, err := parsePatterns(value)
	if err != nil { // whoever wrote it wants to know
		r.log.Warn("a session attribute lists no documents", "attribute", name, "session", a.Session.Handle(), "err", err)
		return fmt.Errorf("%w: %w", ws.ErrForbidden, err)
	}
	if !slices.ContainsFunc(patterns, func(p string) bool { return match(p, a.Document) }) {
		return fmt.Errorf("%w: no pattern in %s is for this document", ws.ErrForbidden, name)
	}
	return nil
}

// parsePatterns reads an attribute's value. One entry that is no text makes
// all of it worthless: it was not written for this.
func parsePatterns(value json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(value, &one) == nil && string(value) != "null" {
		return []string{one}, nil
	}
	var list []*string
	if err := json.Unmarshal(value, &list); err != nil || slices.Contains(list, nil) {
		return nil, fmt.Errorf("neither a text nor a list of texts")
	}
	patterns := make([]string, len(list))
	for i, p := range list {
		patterns[i] = *p
	}
	return patterns, nil
}

// match reports whether id is pattern with any run of characters for each of
// its stars. Taking what stands between two stars at its first place is
// enough: it leaves most to the rest.
func match(pattern, id string) bool {
	parts := strings.Split(pattern, "*")
	id, ok := strings.CutPrefix(id, parts[0])
	last := len(parts) - 1
	if !ok || last == 0 {
		return ok && id == ""
	}
	for _, part := range parts[1:last] {
		if _, id, ok = strings.Cut(id, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(id, parts[last])
}
