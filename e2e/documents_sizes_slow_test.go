//go:build slow

package e2e

import "time"

// documentSizes of the proofs in full.
var documentSizes = documentProofs{
	seeds: 10, operations: 250, lasting: 4 * time.Second, faults: 3,
	ghosts: 200, frames: 1_000_000,
	lagging: 20_000, stopped: 30 * time.Second,
	pageKills: 12,
}
