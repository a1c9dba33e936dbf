package config

import (
	"reflect"
	"strings"
)

// field is one key of a section, by its struct tags.
type field struct {
	reflect.StructField
	key string
}

func (f field) tag(name string) string { return f.Tag.Get(name) }

// fields returns the keys of a section's type in their order.
func fields(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			list = append(list, field{t.Field(i), key})
		}
	}
	return list
}

// join names a key inside the section at path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// fillDefaults sets every field of v, a section, that has a default tag.
func fillDefaults(v reflect.Value) {
	for _, f := range fields(v.Type()) {
		fv := v.FieldByIndex(f.Index)
		if text, ok := f.Tag.Lookup("default"); ok {
			if err := setText(fv, text); err != nil {
				panic("bad default tag of " + f.key + ": " + err.Error())
			}
		}
		if fv.Kind() == reflect.Struct {
			fillDefaults(fv)
		}
	}
}

// setting is one value that an environment variable can override.
type setting struct {
	field
	path  string
	env   string
	value reflect.Value
}

// settings returns every scalar setting of c outside of lists, and the first
// listener's address: "TANDEM_LISTEN" is the one that a container needs.
func settings(c *Config) []setting {
	var list []setting
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for _, f := range fields(v.Type()) {
			fv, p := v.FieldByIndex(f.Index), join(path, f.key)
			switch {
			case isScalar(f.Type):
				list = append(list, setting{f, p, envName(p), fv})
			case fv.Kind() == reflect.Struct:
				walk(fv, p)
			case f.Type == reflect.TypeFor[[]Listener]() && fv.Len() > 0:
				address := fields(f.Type.Elem())[0]
				list = append(list, setting{address, p + "[0].address", "TANDEM_LISTEN", fv.Index(0).FieldByIndex(address.Index)})
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return list
}

func envName(path string) string {
	return "TANDEM_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}
