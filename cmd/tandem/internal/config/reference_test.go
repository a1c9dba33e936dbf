package config

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write docs/CONFIGURATION.md")

// TestReference keeps docs/CONFIGURATION.md true.
func TestReference(t *testing.T) {
	const file = "../../../../docs/CONFIGURATION.md"
	want := Reference()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/CONFIGURATION.md differs from the code: run `make docs`")
	}
}

// TestEveryKeyIsDocumented: a key without a meaning helps nobody.
func TestEveryKeyIsDocumented(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		if seen[s] {
			return
		}
		seen[s] = true
		for _, f := range fields(s) {
			if f.tag("doc") == "" {
				t.Errorf("%s.%s has no doc tag", s.Name(), f.Name)
			}
			if check := f.tag("check"); check != "" && checks[check] == nil {
				t.Errorf("%s.%s names the check %q, which is not there", s.Name(), f.Name, check)
			}
			if inner, _ := section(f.Type); inner != nil {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}
