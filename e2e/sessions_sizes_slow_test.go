//go:build slow

package e2e

// sizes of the proofs in full.
var sizes = proofSizes{
	changes: 500, logouts: 500, latencies: 200, faultRounds: 8, faultSockets: 10,
	rotatingSockets: 50, rotations: 5, rotatingWrites: 20, idleSockets: 1000, idleSeconds: 20,
}
