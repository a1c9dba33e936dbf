//go:build slow

package e2e

// pairSizes of the proofs in full.
var pairSizes = pairProofSizes{turns: 10_000, races: 1000, waiting: 5000, relayMiB: 64, refusedFor: 20, plain: true}
