package sessionstore

import (
	"math"
	"math/bits"
)

// readGob decodes the gob stream that most sessions are: one map from names
// to texts, numbers, booleans, bytes and lists of texts. encoding/gob compiles
// a decoder for each stream that it sees, which takes ten times as long as
// reading it does, and every request would wait for that.
//
// It is false for everything else, which encoding/gob then decodes or
// refuses: other types, other keys, and whatever is not as an encoder writes
// it. The format is that of encoding/gob's documentation.
func readGob(raw string) (values map[any]any, ok bool) {
	g := gobText{s: raw}
	g.message()
	if id := g.typeID(); id == 0 || id != g.mapID || g.byte() != 0 {
		return nil, false
	}
	values = g.mapOf(g.length())
	return values, !g.failed && g.at == g.end && g.end == len(raw)
}

// gobText is a place in a gob stream. Its methods go past what they name and
// return it. Once one was not there failed is true, and all that they return
// is of no use.
type gobText struct {
	s       string
	at      int
	end     int // of the message
	failed  bool
	mapID   int64 // of the declared type map[any]any; zero: none yet
	textsID int64 // of the declared type []string
}

// The types that have an ID in every stream.
const (
	gobBool      = 1
	gobInt       = 2
	gobFloat     = 4
	gobBytes     = 5
	gobString    = 6
	gobInterface = 8
	gobFirstID   = 64 // of those that are declared
)

func (g *gobText) fail() { g.failed, g.at = true, len(g.s) }

func (g *gobText) byte() byte {
	if g.at == len(g.s) {
		g.fail()
		return 0
	}
	g.at++
	return g.s[g.at-1]
}

// uint is a byte up to 127, or else, after the negated number of them, bytes.
func (g *gobText) uint() uint64 {
	b := g.byte()
	if b <= math.MaxInt8 {
		return uint64(b)
	}
	n := -int(int8(b))
	if n > 8 {
		g.fail()
		return 0
	}
	var u uint64
	for range n {
		u = u<<8 | uint64(g.byte())
	}
	return u
}

// int has its sign in the lowest bit.
func (g *gobText) int() int64 {
	u := g.uint()
	if u&1 != 0 {
		return ^int64(u >> 1)
	}
	return int64(u >> 1)
}

// length is a number of bytes, or of things of at least one, that follow.
func (g *gobText) length() int {
	n := g.uint()
	if n > uint64(len(g.s)-g.at) {
		g.fail()
		return 0
	}
	return int(n)
}

func (g *gobText) message() {
	n := g.length()
	g.end = g.at + n
}

func (g *gobText) text() string {
	n := g.length()
	g.at += n
	return g.s[g.at-n : g.at]
}

// literally goes past these bytes.
func (g *gobText) literally(want string) {
	for i := range len(want) {
		if g.byte() != want[i] {
			g.fail()
			return
		}
	}
}

// typeID is a type's ID. A declaration of the type may come before it, which
// ends a message, be it in the midst of a value.
func (g *gobText) typeID() int64 {
	id := g.int()
	if id >= 0 {
		return id
	}
	g.declare(-id)
	if g.at != g.end {
		g.fail()
	}
	g.message()
	return g.int()
}

// declare reads what type the stream gives this ID: map[any]any or []string,
// each once. Numbers before fields are their distance from the one before.
func (g *gobText) declare(id int64) {
	kind := g.byte()
	g.literally("\x01\x02") // of CommonType only the ID: such types have no name
	if id < gobFirstID || id == g.mapID || id == g.textsID || g.int() != id {
		g.fail()
		return
	}
	g.literally("\x00\x01")
	switch elem := g.int(); {
	case kind == 4 && elem == gobInterface && g.mapID == 0: // its keys
		g.literally("\x01\x10")
		g.mapID = id
	case kind == 2 && elem == gobString && g.textsID == 0:
		g.textsID = id
	default:
		g.fail()
	}
	g.literally("\x00\x00")
}

func (g *gobText) mapOf(n int) map[any]any {
	values := make(map[any]any, min(n, 4*few))
	for range n {
		name, ok := g.any().(string)
		if !ok {
			g.fail()
		}
		if g.failed {
			return nil
		}
		values[name] = g.any()
	}
	return values
}

// any is a value in an interface: the name of its type, the type's ID, and the
// value with its length.
func (g *gobText) any() any {
	name := g.text()
	if name == "" {
		return nil
	}
	id := g.typeID()
	n := g.length()
	end := g.at + n
	if g.byte() != 0 { // values that are no structs count as the field 0
		g.fail()
	}
	v := g.valueOf(name, id)
	if g.at != end {
		g.fail()
	}
	return v
}

func (g *gobText) valueOf(name string, id int64) any {
	switch {
	case name == "string" && id == gobString:
		return g.text()
	case name == "int" && id == gobInt:
		if i := g.int(); int64(int(i)) == i {
			return int(i)
		}
	case name == "int64" && id == gobInt:
		return g.int()
	case name == "float64" && id == gobFloat:
		return math.Float64frombits(bits.ReverseBytes64(g.uint()))
	case name == "bool" && id == gobBool:
		return g.uint() != 0
	case name == "[]uint8" && id == gobBytes:
		return append([]byte(nil), g.text()...)
	case name == "[]string" && id == g.textsID:
		return g.texts(g.length())
	}
	g.fail()
	return nil
}

func (g *gobText) texts(n int) []string {
	if n == 0 {
		return nil
	}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = g.text()
	}
	return texts
}
