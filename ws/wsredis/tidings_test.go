package wsredis

import "testing"

func TestTidings(t *testing.T) {
	heard := func(number uint64) func(*tidings) bool {
		return func(n *tidings) bool { return n.heard(number, false) }
	}
	first := func(number uint64) func(*tidings) bool { return func(n *tidings) bool { return n.heard(number, true) } }
	check := func(number uint64) func(*tidings) bool { return func(n *tidings) bool { return n.check(number) } }
	read := func(number uint64) func(*tidings) bool {
		return func(n *tidings) bool { n.base(number); return false }
	}
	for name, steps := range map[string][]struct {
		do   func(*tidings) bool
		want bool
	}{
		"in order":                     {{read(0), false}, {first(7), false}, {heard(8), false}, {check(8), false}, {check(8), false}},
		"one lost, seen by the next":   {{read(7), false}, {heard(9), true}, {heard(10), false}},
		"one lost, seen by two checks": {{read(7), false}, {check(8), false}, {check(8), true}, {check(8), false}},
		"late":                         {{read(7), false}, {check(8), false}, {heard(8), false}, {check(8), false}},
		"told twice":                   {{read(7), false}, {heard(8), false}, {heard(8), false}, {heard(7), false}, {heard(9), false}},
		"the very first lost":          {{read(0), false}, {heard(8), true}},
		"the only one lost":            {{read(0), false}, {check(7), false}, {check(7), true}},
		"not read, heard":              {{heard(7), false}, {read(9), false}, {heard(8), false}},
		"not read, checked":            {{check(7), false}, {check(7), false}, {heard(8), false}},
		"numbers lost":                 {{read(7), false}, {first(100), true}, {heard(101), false}},
		"numbers lost, checked":        {{read(7), false}, {check(7), false}, {check(0), true}, {check(0), false}, {first(100), false}},
		"fail-over":                    {{read(7), false}, {heard(8), false}, {check(8), false}, {check(7), true}, {heard(8), false}},
	} {
		var n tidings
		for i, step := range steps {
			if got := step.do(&n); got != step.want {
				t.Errorf("%s: step %d: %t", name, i, got)
			}
		}
	}
}
