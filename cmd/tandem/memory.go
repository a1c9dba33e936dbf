package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How memory is given back after a rush.
const (
	memoryLook  = 2 * time.Second
	memoryPause = 10 * time.Second // between two collections for this reason at least
	memorySpare = 16 << 20         // bytes that are not worth one
)

// returnMemory gives what a rush has left behind back to the system once it is
// over. The runtime would, too, but in minutes: until garbage is as much as
// what lives, nothing is collected, and a replica whose clients rest makes
// hardly any.
func returnMemory(ctx context.Context) {
	ticker := time.NewTicker(memoryLook)
	defer ticker.Stop()
	last := readMemory()
	var returned time.Time
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if time.Since(returned) >= memoryPause && now.worthReturning(last) {
			debug.FreeOSMemory()
			returned = time.Now()
			now = readMemory()
		}
		last = now
	}
}

// memory is what the runtime says of the heap, in bytes.
type memory struct {
	allocated uint64 // since the process began
	live      uint64 // found in use by the last collection
	held      uint64 // of the system's memory
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, // garbage that has not been found is in it
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return memory{
		allocated: s[0].Value.Uint64(),
		live:      s[1].Value.Uint64(),
		held:      s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64(),
	}
}

// worthReturning reports whether the process has become quiet since before, and
// holds clearly more than it uses.
func (m memory) worthReturning(before memory) bool {
	quiet := m.allocated-before.allocated <= m.live/4
	return quiet && m.held > m.live+m.live/4+memorySpare
}
