package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the configuration.
type Fault struct {
	Where   string // file, "TANDEM_…" for an environment variable, "--…" for a flag
	Line    int    // from 1; 0 when Where is no file
	Column  int    // from 1, in characters; 0 when Where is no file
	Message string // what is wrong and what is allowed; never holds a secret
}

// String is "file:line:column: message", or "TANDEM_…: message".
func (f Fault) String() string { return f.At() + ": " + f.Message }

// At is the place: "file:line:column", or the variable or flag.
func (f Fault) At() string {
	if f.Line == 0 {
		return f.Where
	}
	return fmt.Sprintf("%s:%d:%d", f.Where, f.Line, f.Column)
}

// Flag reports whether the fault lies in a flag of the command line.
func (f Fault) Flag() bool { return strings.HasPrefix(f.Where, "--") }

// Faults is the error of a configuration that cannot be used: all that is
// wrong, those of the file first and in its order.
type Faults []Fault

// Error lists the faults, one a line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		switch {
		case (a.Line == 0) != (b.Line == 0):
			if a.Line == 0 {
				return 1
			}
			return -1
		case a.Line != b.Line:
			return a.Line - b.Line
		default:
			return a.Column - b.Column
		}
	})
}

// place is where a value was given.
type place struct {
	where        string // as in Fault
	line, column int
	dir          string // what relative paths at this place are relative to
}

// state is what the steps of one Load share: where each value was given, and
// what is wrong so far. Values are named by their path, "listeners[0].address";
// "" is the whole file.
type state struct {
	places  map[string]place
	bad     map[string]bool // values with a fault, so that no second one follows from it
	partial map[string]bool // sections with a bad key: what seems missing may have been meant by it
	unread  bool            // the file's text could not be read at all
	faults  Faults
}

func newState() *state {
	return &state{places: map[string]place{}, bad: map[string]bool{}, partial: map[string]bool{}}
}

// fault notes that the value at path is wrong.
func (s *state) fault(path, format string, args ...any) {
	s.bad[path] = true
	s.note(s.placeOf(path), path, fmt.Sprintf(format, args...))
}

// note notes a fault that lies at p and concerns path.
func (s *state) note(p place, path, message string) {
	if path != "" {
		message = path + ": " + message
	}
	s.faults = append(s.faults, Fault{Where: p.where, Line: p.line, Column: p.column, Message: message})
}

// given reports whether the value at path was written anywhere, rightly or not.
func (s *state) given(path string) bool {
	_, ok := s.places[path]
	return ok || s.bad[path]
}

// placeOf returns where the value at path, or else what encloses it, was given.
func (s *state) placeOf(path string) place {
	for path != "" {
		if p, ok := s.places[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return s.places[""]
}
