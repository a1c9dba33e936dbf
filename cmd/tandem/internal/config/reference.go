package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"reflect"
	"strings"
)

//go:generate go test -run TestReference -update .

//go:embed reference.md
var introduction []byte

// Reference is the text of docs/CONFIGURATION.md: every key, by the struct tags.
func Reference() []byte {
	c := &Config{Listeners: []Listener{{}}}
	r := &reference{seen: map[reflect.Type]bool{}, overrides: map[string]string{}}
	for _, set := range settings(c) {
		path := strings.ReplaceAll(set.path, "[0]", "[]")
		r.overrides[path] = code(set.env)
		if flag := set.tag("flag"); flag != "" {
			r.overrides[path] += ", " + code(flag)
		}
	}
	r.Write(introduction)
	r.section(reflect.TypeFor[Config](), "")
	return r.Bytes()
}

type reference struct {
	bytes.Buffer
	seen      map[reflect.Type]bool
	overrides map[string]string // by path, with [] for each list
}

// section writes the table of the section of type t at path, then the
// sections inside it; one that stands in several places only once.
func (r *reference) section(t reflect.Type, path string) {
	if r.seen[t] {
		return
	}
	r.seen[t] = true
	heading := "Top level"
	if path != "" {
		heading = code(path)
	}
	fmt.Fprintf(r, "\n## %s\n\n| key | value | default | override | meaning |\n|---|---|---|---|---|\n", heading)
	for _, f := range fields(t) {
		fmt.Fprintf(r, "| %s | %s | %s | %s | %s |\n", code(f.key), value(f), defaultOf(f), r.overrides[join(path, f.key)], meaning(f))
	}
	for _, f := range fields(t) {
		if inner, suffix := section(f.Type); inner != nil {
			r.section(inner, join(path, f.key)+suffix)
		}
	}
}

// section returns the type of the section that a field holds, or nil, and
// "[]" when the field holds a list of them.
func section(t reflect.Type) (inner reflect.Type, suffix string) {
	switch t.Kind() {
	case reflect.Pointer:
		return t.Elem(), ""
	case reflect.Struct:
		return t, ""
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return t.Elem(), "[]"
		}
	}
	return nil, ""
}

// value says what may be written for f.
func value(f field) string {
	if allowed := f.tag("enum"); allowed != "" {
		return code(strings.Split(allowed, "|")...)
	}
	inner, suffix := section(f.Type)
	switch {
	case suffix != "":
		return "list of sections"
	case inner != nil:
		return "section"
	}
	text := typeName(f.Type)
	low, high := f.tag("min"), f.tag("max")
	switch {
	case low != "" && high != "":
		text += fmt.Sprintf(", %s to %s", low, high)
	case low != "":
		text += ", " + low + " or more"
	}
	return text
}

func defaultOf(f field) string {
	text, auto := f.tag("default"), f.tag("auto")
	switch {
	case auto != "":
		return marked(auto)
	case f.Type == listType:
		return code(strings.Split(text, ",")...)
	case text != "":
		return code(text)
	case f.tag("required") != "":
		return "required"
	default:
		return "–"
	}
}

func meaning(f field) string { return marked(f.tag("doc")) }

// marked shows what is quoted in the text of a tag as code.
func marked(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, `"`, "`"), "|", `\|`)
}

func code(words ...string) string { return "`" + strings.Join(words, "`, `") + "`" }
