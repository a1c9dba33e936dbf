//go:build !slow

package e2e

// pairSizes of the proofs that make the promises about pairs good; `make e2e` runs them in full.
var pairSizes = pairProofSizes{turns: 800, races: 60, waiting: 150, relayMiB: 6, refusedFor: 2}
