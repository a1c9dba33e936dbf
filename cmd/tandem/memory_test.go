package main

import (
	"runtime"
	"testing"
)

func TestWorthReturning(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name           string
		made           uint64 // since the look before
		live, held     uint64
		kept           uint64
		worthReturning bool
	}{
		{"a rush is over", 2 * mb, 80 * mb, 160 * mb, 0, true},
		{"a rush goes on", 60 * mb, 80 * mb, 160 * mb, 0, false},
		{"nothing was left behind", 0, 80 * mb, 95 * mb, 0, false},
		{"a replica without clients", 0, 5 * mb, 12 * mb, 0, false},
		{"one whose clients have gone", 0, 5 * mb, 120 * mb, 0, true},
		{"what could not be returned the last time", 0, 80 * mb, 160 * mb, 155 * mb, false},
		{"steady work", 60 * mb, 400 * mb, 700 * mb, 0, false},
	} {
		before := memory{allocated: 500 * mb}
		now := memory{allocated: 500*mb + c.made, live: c.live, held: c.held}
		if got := now.worthReturning(before, memory{held: c.kept}); got != c.worthReturning {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// What a rush leaves behind is what the runtime says is held beyond what lives.
func TestReadMemory(t *testing.T) {
	before := readMemory()
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	after := readMemory()
	runtime.KeepAlive(garbage)
	if made := after.allocated - before.allocated; made < uint64(len(garbage))<<20 {
		t.Errorf("%d bytes allocated", made)
	}
	if after.held < after.live || after.held < 64<<20 {
		t.Errorf("%+v", after)
	}
}
