package ws

import (
	"testing"
	"time"
)

// An allowance is its user's for as long as a connection holds it, whichever began it.
func TestAllowances(t *testing.T) {
	now := time.Now()
	all := newAllowances(Limits{FramesPerUser: 1})
	one, two, other := all.hold("7"), all.hold("7"), all.hold("8")
	if one != two || one == other {
		t.Fatal("connections of one user share one")
	}
	for i, want := range []bool{true, true, false} {
		if _, ok := one.frame(now); ok != want {
			t.Errorf("frame %d: %t", i, ok)
		}
	}
	if _, ok := two.operation(now); !ok {
		t.Error("operations have no limit here")
	}
	all.release("7", one)
	if all.hold("7") != two {
		t.Error("it began anew while a connection held it")
	}
	all.release("7", two)
	all.release("7", two)
	if fresh := all.hold("7"); fresh == two || len(all.users) != 2 {
		t.Errorf("%d users", len(all.users))
	}
	if all.hold("") != nil || newAllowances(Limits{}).hold("7") != nil {
		t.Error("nobody, and nothing, has none")
	}
	var none *allowance
	if _, ok := none.frame(now); !ok {
		t.Error("none allows everything")
	}
}
