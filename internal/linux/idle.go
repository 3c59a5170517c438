package linux

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Settle gives back the memory that only the start of a process needed: free
// heap, and the mapped pages of its own program file. Those stay in the page
// cache and come back, a few at a time, where they are used again. It is for a
// process that has started and will mostly wait.
func Settle() error {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		from, to, ok := programText(line, program)
		if !ok {
			continue
		}
		// Private, never written and backed by the file: to drop it changes
		// nothing but where the next read finds it (madvise(2), MADV_DONTNEED).
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give back %s: %w", strings.TrimSpace(line), errno)
		}
	}
	return nil
}

// programText reads a line of /proc/PID/maps: a part of the program that is
// private and cannot be written.
func programText(line, program string) (from, to uintptr, ok bool) {
	fields := strings.Fields(line) // range, mode, offset, device, inode, path
	if len(fields) < 6 || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+program) {
		return 0, 0, false
	}
	if mode := fields[1]; !strings.HasPrefix(mode, "r") || mode[1] == 'w' || mode[3] != 'p' {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
		return 0, 0, false
	}
	return from, to, from < to && from%uintptr(unix.Getpagesize()) == 0
}
