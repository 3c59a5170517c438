package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/uuid"
)

// bootID is where the kernel tells which of its runs this is.
const bootID = "/proc/sys/kernel/random/boot_id"

// Reboot is a power cut and another start of the machine, as an engine sees them:
// everything that ran is dead, /run and the network are empty, the boot id is
// another; what is on disk stays. From then on gantryd lives in a mount namespace
// where that id can be seen.
func (e *Engine) Reboot() error {
	if e.Pid() != 0 {
		if err := e.Kill(); err != nil {
			return err
		}
	}
	if err := sweep(e.Name, e.Run); err != nil {
		return err
	}
	fresh, err := newNetns()
	if err != nil {
		return err
	}
	_ = e.net.close() // nothing is left in it
	e.net, e.boot = fresh, filepath.Join(e.Dir, "boot_id")
	return errors.Join(os.Mkdir(e.Run, 0o755), os.WriteFile(e.boot, []byte(uuid.NewString()+"\n"), 0o644), e.Start())
}

// gantryd is a call of it, under the boot id of the last Reboot.
func (e *Engine) gantryd(args []string) *exec.Cmd {
	program := filepath.Join(e.Bin, "gantryd")
	if e.boot == "" {
		return exec.Command(program, args...)
	}
	script := fmt.Sprintf(`mount --bind "$0" %s && exec "$@"`, bootID)
	return exec.Command("unshare", append([]string{"--mount", "--propagation", "slave", "sh", "-c", script, e.boot, program}, args...)...)
}
