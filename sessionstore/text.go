package sessionstore

import (
	"encoding"
	"encoding/json"
	"math/big"
	"reflect"
	"strconv"
	"strings"
)

// asText turns what applications store as a user's ID or name into the one
// form that is used here: strings as they are, integers of any type in
// decimal. Everything else is no ID.
func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return integerText(v.String())
	case encoding.TextMarshaler: // UUIDs of gob applications
		b, err := v.MarshalText()
		if err != nil {
			return ""
		}
		return string(b)
	}
	switch rv := reflect.ValueOf(v); {
	case rv.Kind() == reflect.String:
		return rv.String()
	case rv.CanInt():
		return strconv.FormatInt(rv.Int(), 10)
	case rv.CanUint():
		return strconv.FormatUint(rv.Uint(), 10)
	case rv.CanFloat():
		return integerText(strconv.FormatFloat(rv.Float(), 'f', -1, 64))
	}
	return ""
}

// integerText returns a decimal number's integer digits, or nothing when it
// is no integer.
func integerText(number string) string {
	if !strings.ContainsAny(number, ".eE") {
		if _, ok := new(big.Int).SetString(number, 10); !ok { // NaN, Inf
			return ""
		}
		return number
	}
	return ""
}
