//go:build unix

package video

import (
	"os/exec"
	"syscall"
)

// detach puts ffmpeg into its own process group: Ctrl-C in a terminal goes to the whole foreground
// group and would end the encoder before we have decided what to do with the file.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
