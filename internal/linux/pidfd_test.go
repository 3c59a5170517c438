package linux

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAwaitExit: whoever is sent signals waits no less.
func TestAwaitExit(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			_ = unix.Kill(os.Getpid(), unix.SIGURG)
			time.Sleep(time.Millisecond)
		}
	}()
	const patience = 100 * time.Millisecond
	begun := time.Now()
	if AwaitExit(pidfd, patience) || time.Since(begun) < patience-time.Millisecond {
		t.Errorf("it was done after %v", time.Since(begun))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !AwaitExit(pidfd, time.Minute) {
		t.Error("the end was not seen")
	}
	<-done
	_ = cmd.Wait()
}
