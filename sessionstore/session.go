package sessionstore

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Names of the attributes that have a meaning here.
const (
	reservedPrefix = "tandem."
	attrHandle     = "tandem.sid"
	attrCreated    = "tandem.created"  // RFC 3339: creation, or the latest login
	attrAuth       = "tandem.auth"     // RFC 3339: the latest login
	attrRemember   = "tandem.remember" // true: the cookie outlives the browser
	attrUserID     = "user.id"
	attrUserName   = "user.name"
)

// Session is one request's or socket's working copy of a session: the state
// that was loaded and the changes that were made to it since. It is not safe
// for concurrent use; [Session.Snapshot] is.
type Session struct {
	f *Factory
	stored
	by      claim // how it was loaded
	changes changes
	renewed bool
}

// stored is what Redis held when it was last read or written.
type stored struct {
	place          // zero: nothing is stored yet
	held    string // the bytes in Redis
	raw     string // the serialized attributes: held, opened
	attrs   attributes
	handle  string
	created time.Time
	idleEnd time.Time // when the value's TTL ends
}

// ID returns the session ID, empty for a new session that was not saved, and
// with [Config].HashIDs for one that was not loaded by its ID. It belongs into
// the cookie and nowhere else.
func (s *Session) ID() string { return s.id }

// Handle returns the name that survives rotation, empty for a new session.
func (s *Session) Handle() string { return s.handle }

// IsNew reports whether the session has not been stored yet.
func (s *Session) IsNew() bool { return s.ref == "" }

// Renewed reports whether the session has another ID than the one it was
// loaded by, or its cookie another age, so that the client's cookie must be
// set again.
func (s *Session) Renewed() bool { return s.renewed }

// Remember says whether the client's cookie lives as long as the session may
// ([Session.ExpiresAt]) or until the browser closes, which is the default. It
// is kept with the session: whoever sets the cookie later gives it this age.
// The idle timeout holds for both. Like Set it takes a Save.
func (s *Session) Remember(on bool) error {
	if on == s.Remembered() {
		return nil
	}
	s.renewed = true
	if on {
		return s.set(named(attrRemember), true)
	}
	s.unset(named(attrRemember))
	return nil
}

// Remembered reports what [Session.Remember] was told last.
func (s *Session) Remembered() bool {
	cell, ok := s.cell(named(attrRemember))
	if !ok {
		return false
	}
	v, _ := s.f.codec.value(cell)
	return v == true
}

// cookieAge is how long the client's cookie is to live, in seconds; zero:
// until the browser closes.
func (s *Session) cookieAge(now time.Time) int {
	if !s.Remembered() {
		return 0
	}
	return max(int(s.ExpiresAt().Sub(now)/time.Second), 1)
}

// Get returns an attribute's value. The caller must not modify what it
// points to; a change is made by Set.
func (s *Session) Get(name string) (any, bool) {
	cell, ok := s.cell(named(name))
	if !ok {
		return nil, false
	}
	return s.f.codec.value(cell)
}

// JSON returns an attribute as JSON: in a JSON session the bytes that are
// stored. It is false for an attribute that is not there, or that has no
// form in JSON. The caller must not modify the bytes.
func (s *Session) JSON(name string) (json.RawMessage, bool) {
	cell, ok := s.cell(named(name))
	if !ok {
		return nil, false
	}
	return s.f.codec.json(cell)
}

// Set changes an attribute in this copy; Save stores it. A value equal to
// the loaded one is no change. A json.RawMessage is taken as the JSON that
// it is. It returns ErrReserved for a name under "tandem." and ErrValue for a
// value that the serializer cannot hold.
func (s *Session) Set(name string, v any) error {
	if reserved(name) {
		return fmt.Errorf("%w: %s", ErrReserved, name)
	}
	return s.set(named(name), v)
}

// Delete removes an attribute from this copy. It returns ErrReserved for a
// name under "tandem.".
func (s *Session) Delete(name string) error {
	if reserved(name) {
		return fmt.Errorf("%w: %s", ErrReserved, name)
	}
	s.unset(named(name))
	return nil
}

// Names returns the names of all attributes, sorted, without the reserved
// ones and without keys that are not strings.
func (s *Session) Names() []string {
	var names []string
	for _, k := range s.keys() {
		if k.other == nil && !reserved(k.name) {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// UserID returns the attribute "user.id" as a string: numbers in decimal.
// Empty: nobody is logged in.
func (s *Session) UserID() string { return s.text(attrUserID) }

// UserName returns the attribute "user.name".
func (s *Session) UserName() string { return s.text(attrUserName) }

// Created is when the absolute lifetime began: when the session was created,
// or the latest login.
func (s *Session) Created() time.Time { return s.created }

// ExpiresAt is the end of the absolute lifetime.
func (s *Session) ExpiresAt() time.Time {
	if s.created.IsZero() {
		return time.Time{}
	}
	return s.created.Add(s.f.cfg.AbsoluteTimeout)
}

// IdleExpiresAt is when the session ends without further activity, as far as
// this copy knows.
func (s *Session) IdleExpiresAt() time.Time { return s.idleEnd }

func reserved(name string) bool { return strings.HasPrefix(name, reservedPrefix) }

// cell is what this copy shows for k.
func (s *Session) cell(k key) (cell, bool) {
	if c, ok := s.changes[k]; ok {
		return c, !c.deleted
	}
	return s.attrs.find(k)
}

func (s *Session) text(name string) string {
	cell, ok := s.cell(named(name))
	if !ok {
		return ""
	}
	return s.f.codec.text(cell)
}

// keys lists what this copy shows, in no particular order.
func (s *Session) keys() []key {
	var keys []key
	for k := range s.attrs.all() {
		if _, changed := s.changes[k]; !changed {
			keys = append(keys, k)
		}
	}
	for k, c := range s.changes {
		if !c.deleted {
			keys = append(keys, k)
		}
	}
	return keys
}

// set is Set for any name.
func (s *Session) set(k key, v any) error {
	c, err := s.f.codec.cell(k, v)
	if err != nil {
		return fmt.Errorf("%w: attribute %v", err, k.any())
	}
	if old, ok := s.attrs.find(k); ok && s.f.codec.equal(old, c) {
		delete(s.changes, k)
		return nil
	}
	s.change(k, c)
	return nil
}

func (s *Session) unset(k key) {
	if _, ok := s.attrs.find(k); ok {
		s.change(k, cell{deleted: true})
	} else {
		delete(s.changes, k)
	}
}

func (s *Session) change(k key, c cell) {
	if s.changes == nil {
		s.changes = changes{}
	}
	s.changes[k] = c
}

// values returns what this copy shows as gorilla Values, reserved attributes
// included: a deep copy that the caller may modify.
func (s *Session) values() (map[any]any, error) {
	raw, err := s.merged()
	if err != nil || raw == "" {
		return map[any]any{}, err
	}
	return s.f.decodeValues(raw)
}

// assign makes this copy show v. What differs from the stored state becomes
// a pending change, what is missing a deletion; reserved attributes stay.
func (s *Session) assign(v map[any]any) error {
	before := map[any]any{}
	if s.raw != "" {
		var err error
		if before, err = s.f.decodeValues(s.raw); err != nil {
			return err
		}
	}
	maps.DeleteFunc(s.changes, func(k key, _ cell) bool { return !k.reserved() })
	for key, value := range v {
		if reservedKey(key) {
			continue
		}
		if old, ok := before[key]; ok && reflect.DeepEqual(old, value) {
			continue
		}
		if err := s.set(keyOf(key), value); err != nil {
			return err
		}
	}
	for key := range before {
		if _, ok := v[key]; !ok && !reservedKey(key) {
			s.unset(keyOf(key))
		}
	}
	return nil
}

func reservedKey(key any) bool {
	name, ok := key.(string)
	return ok && reserved(name)
}

// merged is the serialized form of what this copy shows, empty for a new
// session without changes.
func (s *Session) merged() (string, error) {
	if len(s.changes) == 0 {
		return s.raw, nil
	}
	return s.f.codec.merge(s.raw, s.attrs, s.changes)
}

// decodeValues decodes a stored value with the Serializer, as gorilla Values.
func (f *Factory) decodeValues(raw string) (map[any]any, error) {
	return valueCodec{f.cfg.Serializer}.values(raw)
}

// Snapshot returns what this copy shows now, as a value that does not change
// and is safe for concurrent use. Changes that the serializer refuses are
// left out.
func (s *Session) Snapshot() *Snapshot {
	raw, err := s.merged()
	if err != nil {
		raw = s.raw
	}
	return &Snapshot{
		ref: s.ref, held: s.held, raw: raw, codec: s.f.codec, handle: s.handle, created: s.created,
		userID: s.UserID(), userName: s.UserName(), remembered: s.Remembered(),
		expires: s.ExpiresAt(), idleEnd: s.idleEnd,
	}
}
