package webapp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// decodePatch reads one JSON object, strictly: a misspelt field must not
// pass for an empty change.
func decodePatch(body []byte) (patch, error) {
	if !utf8.Valid(body) {
		return patch{}, errors.New("the body is not UTF-8") // raw values are stored as they come
	}
	var change *patch
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&change); err != nil {
		return patch{}, jsonError(err)
	}
	if change == nil {
		return patch{}, errors.New("the body is null")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return patch{}, errors.New("there is more than one value")
	}
	return *change, nil
}

// jsonError says what is wrong in words that do not name Go.
func jsonError(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("%s is not allowed at %s", kind.Value, cmp.Or(kind.Field, "the top"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the body ends too early")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}
