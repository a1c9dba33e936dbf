//go:build !slow

package e2e

import "time"

// stormSizes of the proofs that restarts and storms do no harm; `make e2e` runs them in full.
var stormSizes = stormProofs{
	sockets: 100, documents: 4, pace: 100 * time.Millisecond, spread: 3 * time.Second, admission: 200,
	storm: 60, stormAdmission: 10,
}
