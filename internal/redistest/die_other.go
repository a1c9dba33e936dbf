//go:build !linux

package redistest

import "os/exec"

// dieWithParent is Linux's; elsewhere only the test's cleanup ends the process.
func dieWithParent(*exec.Cmd) {}
