package redistest

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets the kernel kill the process when the test binary is
// killed (a time-out, Ctrl-C) and no cleanup runs.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
