//go:build slow

package e2e

// edgeSizes of the proofs in full.
var edgeSizes = edgeProofs{body: 2 << 30, raw: 1 << 30}
