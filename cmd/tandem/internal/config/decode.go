package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder walks a YAML document along the fields of Config. It goes on after
// a fault, so that all of them are found in one run.
type decoder struct {
	*state
	file, dir string
	anchors   map[string]ast.Node
}

// bareEmbedded finds the one value of the documentation that YAML would read
// as a nested key: redis: embedded:
var bareEmbedded = regexp.MustCompile(`(?m)^(redis:[ \t]+)embedded:([ \t]*(?:#.*)?\r?)$`)

// decode reads the file's text into c, which holds the defaults.
func (d *decoder) decode(text []byte, c *Config) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // editors on Windows begin UTF-8 so
	text = bareEmbedded.ReplaceAll(text, []byte(`$1"embedded:"$2`))
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return
	}
	var body ast.Node
	for _, doc := range parsed.Docs {
		switch {
		case doc.Body == nil, doc.Body.Type() == ast.DirectiveType: // %YAML 1.2
		case body != nil:
			d.note(d.at(doc.Body), "", "a second YAML document begins here; only one is allowed")
		default:
			body = doc.Body
		}
	}
	if body != nil {
		d.value(body, reflect.ValueOf(c).Elem(), "")
	}
}

func (d *decoder) syntax(err error) {
	var syntax yaml.Error
	p := place{where: d.file, line: 1, column: 1}
	message := strings.TrimSpace(err.Error())
	if errors.As(err, &syntax) {
		message = syntax.GetMessage()
		if t := syntax.GetToken(); t != nil && t.Position != nil {
			p.line, p.column = max(t.Position.Line, 1), max(t.Position.Column, 1)
		}
	}
	d.unread = true
	d.note(p, "", "this is not YAML: "+message)
}

// value decodes n into v, the value at path.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if n = d.resolve(n, path); n == nil {
		return
	}
	t := v.Type()
	_, null := n.(*ast.NullNode)
	if !null || path == "" {
		d.places[path] = d.at(n)
	}
	switch {
	case null && t.Kind() == reflect.Struct:
		// A section whose keys are all commented out.
	case null:
		d.fault(path, "has no value; write %s, or leave the key out", article(typeName(t)))
	case isScalar(t) && t != listType:
		d.scalar(n, v, path)
	case t.Kind() == reflect.Slice:
		d.sequence(n, v, path)
	case t.Kind() == reflect.Pointer:
		section := reflect.New(t.Elem())
		fillDefaults(section.Elem())
		d.mapping(n, section.Elem(), path)
		v.Set(section)
	default:
		d.mapping(n, v, path)
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.unread = d.unread || path == ""
		d.fault(path, "is %s; a section with keys is wanted: %s", describe(n), knownKeys(v.Type()))
		return
	}
	known := map[string]field{}
	for _, f := range fields(v.Type()) {
		known[f.key] = f
	}
	first := map[string]place{}
	for _, pair := range pairs {
		key, ok := d.key(pair, path)
		if !ok {
			continue
		}
		f, ok := known[key]
		if !ok {
			d.badKey(pair.Key, path, "unknown key %s%s; known are %s", quote(key), suggestion(key, v.Type()), knownKeys(v.Type()))
			continue
		}
		if p, twice := first[key]; twice {
			d.badKey(pair.Key, path, "%q is given twice, first in line %d", key, p.line)
			continue
		}
		first[key] = d.at(pair.Key)
		d.places[join(path, key)] = first[key] // for a value that is not there
		d.value(pair.Value, v.FieldByIndex(f.Index), join(path, key))
	}
}

// badKey notes that a key of the section at path cannot be used.
func (d *decoder) badKey(key ast.Node, path, format string, args ...any) {
	d.partial[path] = true
	d.note(d.at(key), path, fmt.Sprintf(format, args...))
}

// key returns the name of a pair's key; false means that a fault was noted.
func (d *decoder) key(pair *ast.MappingValueNode, path string) (string, bool) {
	switch key := pair.Key.(type) {
	case *ast.StringNode:
		return key.Value, true
	case *ast.MergeKeyNode:
		d.badKey(key, path, `"<<" is not supported; write the keys out, or use an alias for the whole section`)
	default:
		d.badKey(pair.Key, path, "a key must be plain text")
	}
	return "", false
}

func (d *decoder) sequence(n ast.Node, v reflect.Value, path string) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(path, "is %s; a list is wanted, such as [a, b]", describe(n))
		return
	}
	items := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
	for i, item := range list.Values {
		if iv := items.Index(i); iv.Kind() == reflect.Struct {
			fillDefaults(iv)
		}
		d.value(item, items.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(items)
}

// scalar decodes one plain value. On a fault v keeps its default.
func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	text, ok := "", false
	switch n := n.(type) {
	case *ast.StringNode:
		text, ok = n.Value, v.Kind() == reflect.String || v.Type() == durationType || v.Type() == sizeType
	case *ast.LiteralNode:
		text, ok = n.Value.Value, v.Kind() == reflect.String
	case *ast.BoolNode:
		text, ok = fmt.Sprint(n.Value), v.Kind() == reflect.Bool
	case *ast.IntegerNode:
		text, ok = fmt.Sprint(n.Value), v.Kind() == reflect.Int || v.Kind() == reflect.Int64
	}
	if !ok {
		quote := ""
		if v.Kind() == reflect.String && isPlain(n) {
			quote = "; put it in quotes"
		}
		d.fault(path, "is %s; %s is wanted%s", describe(n), article(typeName(v.Type())), quote)
		return
	}
	parsed := reflect.New(v.Type()).Elem()
	if err := setText(parsed, text); err != nil {
		d.fault(path, "%v", err)
		return
	}
	v.Set(parsed)
}

// resolve follows anchors and aliases to a node that holds a value; nil
// means that a fault was noted.
func (d *decoder) resolve(n ast.Node, path string) ast.Node {
	for range 16 { // an alias may name itself
		switch node := n.(type) {
		case *ast.AnchorNode:
			d.anchors[node.Name.String()] = node.Value
			n = node.Value
		case *ast.AliasNode:
			target, ok := d.anchors[node.Value.String()]
			if !ok {
				return d.unresolved(node, path, "no anchor &"+node.Value.String()+" stands before this alias")
			}
			n = target
		case *ast.TagNode:
			return d.unresolved(node, path, "YAML tags such as "+node.Start.Value+" are not supported")
		case nil:
			return nil
		default:
			return n
		}
	}
	return d.unresolved(n, path, "an alias leads back to itself")
}

func (d *decoder) unresolved(n ast.Node, path, message string) ast.Node {
	d.places[path] = d.at(n)
	d.fault(path, "%s", message)
	return nil
}

// at is the place of a node. A block section begins at its first key; the
// parser's own token for it is the colon after that.
func (d *decoder) at(n ast.Node) place {
	switch node := n.(type) {
	case *ast.MappingNode:
		if !node.IsFlowStyle && len(node.Values) > 0 {
			n = node.Values[0].Key
		}
	case *ast.MappingValueNode:
		n = node.Key
	}
	p := place{where: d.file, line: 1, column: 1, dir: d.dir}
	if t := n.GetToken(); t != nil && t.Position != nil {
		p.line, p.column = t.Position.Line, t.Position.Column
	}
	return p
}
