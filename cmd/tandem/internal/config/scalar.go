package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 65536, 64KiB, 1MiB.
type Size int64

var units = []struct {
	name string
	size Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String is the shortest exact form: 64KiB, 1000B.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return "0"
}

func parseSize(text string) (Size, error) {
	number, unit := text, Size(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size; write bytes, or a number with KiB, MiB or GiB, such as 64KiB", quote(text))
	}
	if n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
		return 0, fmt.Errorf("%s is too large a size", quote(text))
	}
	return Size(n) * unit, nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s is not a duration; write a number with a unit, such as 500ms, 30s, 5m or 12h", quote(text))
	}
	return d, nil
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	listType     = reflect.TypeFor[[]string]()
)

// isScalar reports whether a field of this type is one setting: it has a
// text form, and so an environment variable and a default.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return t == listType
}

// setText sets v, of a scalar type, from its text form; a list is separated by commas.
func setText(v reflect.Value, text string) error {
	switch {
	case v.Type() == durationType:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case v.Type() == sizeType:
		n, err := parseSize(text)
		v.SetInt(int64(n))
		return err
	case v.Type() == listType:
		var list []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		v.Set(reflect.ValueOf(list))
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s is neither true nor false", quote(text))
		}
		v.SetBool(b)
	case v.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		if errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%s is too large a number", quote(text))
		} else if err != nil {
			return fmt.Errorf("%s is not a whole number", quote(text))
		}
		v.SetInt(int64(n))
	default:
		v.SetString(text)
	}
	return nil
}

// compare orders v, a number, against the text form of another of its type.
func compare(v reflect.Value, text string) int {
	bound := reflect.New(v.Type()).Elem()
	if err := setText(bound, text); err != nil {
		panic("bad min or max tag: " + err.Error())
	}
	return cmp.Compare(v.Int(), bound.Int())
}

// typeName says in words what may be written for a field.
func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == sizeType:
		return "size"
	case t == listType:
		return "list of texts"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list"
	default:
		return "section"
	}
}
