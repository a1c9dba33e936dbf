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
	memorySpare = 8 << 20          // bytes that are not worth one
	memoryQuiet = 32 << 20         // bytes allocated between two looks by a process that is quiet, and no more than an eighth of what lives
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
	var kept memory // what was held after the last collection, and could not be returned
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if time.Since(returned) >= memoryPause && now.worthReturning(last, kept) {
			debug.FreeOSMemory()
			returned = time.Now()
			now = readMemory()
			kept = now
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
// holds clearly more than it uses, and than it kept the last time.
func (m memory) worthReturning(before, kept memory) bool {
	quiet := m.allocated-before.allocated <= min(memoryQuiet, m.live/8+memorySpare/2)
	return quiet && m.held > max(m.live+m.live/8, kept.held)+memorySpare
}
