package sessionstore

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Change is a change of a session that comes as JSON, from a page's script or
// an application: {"set": {name: value}, "delete": [name]}.
type Change struct {
	Set    map[string]json.RawMessage `json:"set"`
	Delete []string                   `json:"delete"`
}

// ParseChange reads one JSON object, strictly: a misspelt field must not pass
// for an empty change. Its errors are for people.
func ParseChange(text []byte) (Change, error) {
	if !utf8.Valid(text) {
		return Change{}, errors.New("the body is not UTF-8") // raw values are stored as they come
	}
	var c *Change
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Change{}, changeError(err)
	}
	if c == nil {
		return Change{}, errors.New("the body is null")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Change{}, errors.New("there is more than one value")
	}
	return *c, nil
}

// changeError says what is wrong in words that do not name Go.
func changeError(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("%s is not allowed at %s", kind.Value, cmp.Or(kind.Field, "the top"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the body ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// Apply makes the change in s; Save stores it. Errors are those of
// [Session.Set] and [Session.Delete].
func (c Change) Apply(s *Session) error {
	for name, value := range c.Set {
		if err := s.Set(name, value); err != nil {
			return err
		}
	}
	for _, name := range c.Delete {
		if err := s.Delete(name); err != nil {
			return err
		}
	}
	return nil
}

// ChangeKind says what a Change means for who is logged in.
type ChangeKind string

// Every kind of Change.
const (
	ChangeLogin  ChangeKind = "login"  // user.id is set
	ChangeLogout ChangeKind = "logout" // user.id is deleted, or set to null
	ChangeWrite  ChangeKind = "write"  // of other attributes only
)

// Kind tells what the change is.
func (c Change) Kind() ChangeKind {
	switch id, set := c.Set[attrUserID]; {
	case slices.Contains(c.Delete, attrUserID), set && isNull(id):
		return ChangeLogout
	case set:
		return ChangeLogin
	default:
		return ChangeWrite
	}
}

// check finds what is wrong with the change as a whole: [ErrChange].
func (c Change) check() error {
	for _, name := range c.Delete {
		if _, both := c.Set[name]; both {
			return fmt.Errorf("%w: %q is both set and deleted", ErrChange, name)
		}
	}
	switch c.Kind() {
	case ChangeLogout:
		for name, value := range c.Set {
			if name != attrUserID && !isNull(value) {
				return fmt.Errorf("%w: a logout ends the session, so that %q cannot be set in it", ErrChange, name)
			}
		}
	case ChangeLogin:
		if userText(c.Set[attrUserID]) == "" {
			return fmt.Errorf("%w: user.id must be a text that is not empty, or a whole number", ErrChange)
		}
	}
	return nil
}

// login is who the change logs in. A user without a name is called by the ID,
// unless current, the session of the same user, knows better.
func (c Change) login(current *Session) Login {
	l := Login{UserID: userText(c.Set[attrUserID]), UserName: userText(c.Set[attrUserName]), With: c.Apply}
	if l.UserName == "" && current != nil && current.UserID() == l.UserID {
		l.UserName, l.Remember = current.UserName(), current.Remembered()
	}
	l.UserName = cmp.Or(l.UserName, l.UserID)
	return l
}

// userText is a user's ID or name as JSON, in the form it has here.
func userText(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return ""
	}
	return asText(v)
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }
