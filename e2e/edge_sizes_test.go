//go:build !slow

package e2e

// edgeSizes of the proofs in short.
var edgeSizes = edgeProofs{body: 48 << 20, raw: 64 << 20}
