package linux

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

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

// Settler has a process settle whenever it has been quiet for a while after it has
// worked: a burst leaves free heap and mapped program text behind.
type Settler struct {
	after  time.Duration
	least  int64
	settle func()
	work   atomic.Int64 // since the last time
	armed  atomic.Bool  // a timer runs
	seen   int64        // work at the last look; of whoever looks
}

// NewSettler calls settle after the start, and again after at least so much work,
// each time when nothing was done for so long.
func NewSettler(after time.Duration, least int, settle func()) *Settler {
	s := &Settler{after: after, least: int64(least), settle: settle}
	s.Worked(least)
	return s
}

// Worked notes some work, from any goroutine. A little work is not worth the pages
// that have to come back after it.
func (s *Settler) Worked(n int) {
	s.work.Add(int64(n))
	s.arm()
}

func (s *Settler) arm() {
	if !s.armed.Load() && s.armed.CompareAndSwap(false, true) {
		time.AfterFunc(s.after, s.look)
	}
}

// look settles if nothing was done since the last look. One timer runs at a time.
func (s *Settler) look() {
	now := s.work.Load()
	if now != s.seen {
		s.seen = now
		time.AfterFunc(s.after, s.look)
		return
	}
	if now >= s.least {
		s.work.Add(-now)
		s.seen, now = 0, 0
		s.settle()
	}
	s.armed.Store(false)
	if s.work.Load() != now { // meanwhile, when a timer seemed to run
		s.arm()
	}
}
