package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Source says where the configuration comes from. Each overrides the one
// before: defaults, file, environment, flags.
type Source struct {
	File   string                   // YAML file; empty: the one in TANDEM_CONFIG; neither: none
	Getenv func(name string) string // nil: no environment
	Flags  []Flag                   // flags that were given
}

// Flag is a setting on the command line.
type Flag struct {
	Name  string // as in messages: "--redis"
	Path  string // what it sets: "redis", "listeners[0].address"
	Value string
}

// Load reads the configuration. The error is Faults when the source can be
// read but not used. With an error the configuration is returned too, for its
// Log section alone.
func Load(src Source) (*Config, error) {
	if src.Getenv == nil {
		src.Getenv = func(string) string { return "" }
	}
	if src.File == "" {
		src.File = src.Getenv("TANDEM_CONFIG")
	}
	s := newState()
	c := &Config{source: src, places: s}
	fillDefaults(reflect.ValueOf(c).Elem())
	if src.File != "" {
		text, err := os.ReadFile(src.File)
		if err != nil {
			s.override(c, src) // they may say how to log this
			return c, unreadable(src.File, err)
		}
		s.places[""] = place{where: src.File, line: 1, column: 1, dir: filepath.Dir(src.File)}
		s.decode(src.File, text, c)
	}
	if c.Listeners == nil && !s.bad["listeners"] {
		c.Listeners = []Listener{{Address: "127.0.0.1:8080"}}
		fillDefaults(reflect.ValueOf(&c.Listeners[0]).Elem())
	}
	s.override(c, src)
	if !s.unread {
		v := &validator{s, c}
		v.run()
	}
	if len(s.faults) > 0 {
		s.faults.sort()
		return c, s.faults
	}
	return c, nil
}

func unreadable(file string, err error) error {
	if os.IsNotExist(err) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("the configuration file %s cannot be read: %w", file, reason(err))
}

func (s *state) decode(file string, text []byte, c *Config) {
	d := decoder{state: s, file: file, dir: filepath.Dir(file), anchors: map[string]ast.Node{}}
	d.decode(text, c)
}

// override sets what the environment and the flags say.
func (s *state) override(c *Config, src Source) {
	known := map[string]setting{}
	for _, set := range settings(c) {
		known[set.path] = set
		if text := src.Getenv(set.env); text != "" {
			s.set(set, place{where: set.env}, text)
		}
	}
	for _, flag := range src.Flags {
		set, ok := known[flag.Path]
		if !ok {
			s.note(place{where: flag.Name}, "", "there is no setting "+quote(flag.Path)+"; docs/CONFIGURATION.md lists them")
			continue
		}
		s.set(set, place{where: flag.Name}, flag.Value)
	}
}

// set overrides one setting. It takes the place of what was wrong with it before.
func (s *state) set(set setting, p place, text string) {
	s.places[set.path] = p
	parsed := reflect.New(set.Type).Elem()
	if err := setText(parsed, strings.TrimSpace(text)); err != nil {
		s.fault(set.path, "%v", err)
		return
	}
	delete(s.bad, set.path)
	set.value.Set(parsed)
}
