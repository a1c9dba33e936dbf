package config

import (
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// describe says what kind of YAML value n is.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "the text " + quote(n.Value)
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.NullNode:
		return "empty"
	}
	if isPlain(n) {
		return n.GetToken().Value
	}
	return "something else"
}

// isPlain reports whether n is a number or a truth value.
func isPlain(n ast.Node) bool {
	switch n.(type) {
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken() != nil
	}
	return false
}

// quote shows the beginning of a text that somebody wrote.
func quote(text string) string {
	const most = 40
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text) + `"`
}

func article(name string) string {
	if strings.Contains(name, " or ") || name == "text" {
		return name
	}
	return "a " + name
}

func knownKeys(t reflect.Type) string {
	var keys []string
	for _, f := range fields(t) {
		keys = append(keys, f.key)
	}
	return strings.Join(keys, ", ")
}

// suggestion is `, did you mean "x"?` when a known key is close to the one
// that was written.
func suggestion(key string, t reflect.Type) string {
	best, bestDistance := "", 3
	for _, f := range fields(t) {
		if d := distance(key, f.key); d < bestDistance && d < len(f.key) {
			best, bestDistance = f.key, d
		}
	}
	if best == "" {
		return ""
	}
	return `, did you mean "` + best + `"?`
}

// distance is the least number of inserted, removed and replaced bytes
// between a and b, or a large number when their lengths tell enough.
func distance(a, b string) int {
	if len(a) > len(b)+3 || len(b) > len(a)+3 {
		return 1 << 10
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
