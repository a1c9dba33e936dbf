//go:build !slow

package e2e

// sizes of the proofs that make the promises about sessions good; `make e2e` runs them in full.
var sizes = proofSizes{
	changes: 50, logouts: 40, latencies: 20, faultRounds: 2, faultSockets: 4,
	rotatingSockets: 12, rotations: 2, rotatingWrites: 8, idleSockets: 100, idleSeconds: 5,
}
