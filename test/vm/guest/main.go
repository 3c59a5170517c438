// Command guest is what runs inside a machine of test/vm. As /init of the
// initramfs it loads modules, mounts the disks and becomes pid 1 (the tiny
// init) or runs systemd; as "run" it runs the tests and sends their results
// out, also on a machine that nobody booted for it.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "init":
		err = pid1()
	case os.Getpid() == 1: // words that the kernel does not know are our arguments
		err = early()
	case len(os.Args) >= 3 && os.Args[1] == "run":
		here := len(os.Args) > 3 && os.Args[3] == "here"
		if err = run(os.Args[2], here); !here {
			if err != nil {
				fmt.Fprintln(os.Stderr, "guest:", err)
			}
			powerOff()
		}
	default:
		err = fmt.Errorf("usage: guest init | guest run MANIFEST [here]")
	}
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "guest:", err)
	if os.Getpid() == 1 {
		powerOff()
	}
	os.Exit(1)
}

// powerOff ends the machine. Its disks are thrown away: nothing is synced.
func powerOff() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
