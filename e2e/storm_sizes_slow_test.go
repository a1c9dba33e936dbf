//go:build slow

package e2e

import "time"

// stormSizes of the proofs in full.
var stormSizes = stormProofs{
	sockets: 2000, documents: 8, pace: 500 * time.Millisecond, spread: 10 * time.Second, admission: 800,
	storm: 500, stormAdmission: 40,
}
