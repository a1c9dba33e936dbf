//go:build !slow

package e2e

import "time"

// documentSizes of the proofs that make the promises about documents good; `make e2e` runs them in full.
var documentSizes = documentProofs{
	seeds: 1, operations: 60, lasting: 2 * time.Second, faults: 2,
	ghosts: 20, frames: 2_000,
	lagging: 2_500, stopped: time.Second,
	pageKills: 2,
}
