package cgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// oomFile is the hierarchy that counts memory, and the file with the line
// "oom_kill N" in it.
func (p *Parent) oomFile() (dir, string, bool) {
	d, ok := p.of("memory")
	switch {
	case !ok:
		return dir{}, "", false
	case d.Unified:
		return d, "memory.events", true
	}
	return d, "memory.oom_control", true
}

// OOMCounter opens the file whose line "oom_kill N" counts the processes that
// the kernel killed for want of memory; nil where there is none. In version 1
// it counts the group's own, without those of groups below it.
func (g *Group) OOMCounter() (*os.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	d, file, ok := g.p.oomFile()
	if !ok {
		return nil, nil
	}
	if g.spare != nil && g.spare.oom != nil {
		f := g.spare.oom
		g.spare.oom = nil
		return f, nil
	}
	fd, err := openAt(int(d.f.Fd()), filepath.Join(g.name, file), unix.O_RDONLY)
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), file), nil
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	}
	return nil, fmt.Errorf("open %s of cgroup %s: %w", file, g.full(), err)
}

// OOMKills counts the processes that the kernel has killed for want of memory
// in the group and those below it; 0 where it does not count. Ask before
// Remove: the count goes with the group.
func (g *Group) OOMKills() (uint64, error) {
	if err := g.check(); err != nil {
		return 0, err
	}
	d, file, ok := g.p.oomFile()
	if !ok {
		return 0, nil
	}
	n, err := oomBelow(d, g.name, file, 0)
	if err != nil {
		return 0, fmt.Errorf("read %s of cgroup %s: %w", file, g.full(), err)
	}
	return n, nil
}

// oomBelow reads the counter of a directory. Version 1 counts where the killed
// process was, version 2 also in all groups above it.
func oomBelow(d dir, name, file string, depth int) (uint64, error) {
	at := int(d.f.Fd())
	text, err := readAt(at, filepath.Join(name, file))
	if isGone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var sum uint64
	if line, ok := lineOf(text, "oom_kill"); ok {
		if sum, err = strconv.ParseUint(line, 10, 64); err != nil {
			return 0, err
		}
	}
	if d.Unified || depth >= maxDepth {
		return sum, nil
	}
	names, err := subdirs(at, name)
	if err != nil && !isGone(err) {
		return sum, err
	}
	for _, n := range names {
		more, err := oomBelow(d, filepath.Join(name, n), file, depth+1)
		if err != nil {
			return sum, err
		}
		sum += more
	}
	return sum, nil
}

// OOMWatch tells when the kernel runs short of the group's memory.
type OOMWatch struct {
	g    *Group
	file *os.File // an eventfd of version 1, memory.events of version 2
	fd   int      // of file
	d    dir
	seen uint64
	late int // looks since the last event after which the count had not risen yet
}

// FD can be waited for by poll(2): there may be something to Check when it has one of
// Events. It is closed by Close.
func (w *OOMWatch) FD() int { return w.fd }

// Events are those of poll(2) to wait for: POLLIN in version 1, POLLPRI in version 2,
// where the file can always be read (kernfs_fop_poll, fs/kernfs/file.c).
func (w *OOMWatch) Events() int16 {
	if w.d.Unified {
		return unix.POLLPRI
	}
	return unix.POLLIN
}

// WatchOOM begins to watch the group. NotImplemented: no controller for memory.
func (g *Group) WatchOOM() (*OOMWatch, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	d, file, ok := g.p.oomFile()
	if !ok {
		return nil, errclass.Errorf(errdefs.ErrNotImplemented, "watch memory of cgroup %s: no controller for memory", g.full())
	}
	begin := g.eventV1
	if d.Unified {
		begin = g.eventV2
	}
	fd, err := begin(d, file)
	if err != nil {
		return nil, fmt.Errorf("watch %s of cgroup %s: %w", file, g.full(), err)
	}
	w := &OOMWatch{g: g, file: os.NewFile(uintptr(fd), file), fd: fd, d: d}
	if w.seen, err = g.OOMKills(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// eventV1 makes an eventfd that the kernel raises (memory.rst of cgroup-v1,
// "OOM Control").
func (g *Group) eventV1(d dir, file string) (int, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("eventfd", err)
	}
	of, err := openAt(int(d.f.Fd()), filepath.Join(g.name, file), unix.O_RDONLY)
	if err == nil {
		err = writeAt(int(d.f.Fd()), filepath.Join(g.name, "cgroup.event_control"), fmt.Sprintf("%d %d", event, of))
		unix.Close(of)
	}
	if err != nil {
		unix.Close(event)
		return -1, err
	}
	return event, nil
}

// eventV2 opens the file, whose changes poll(2) tells (cgroup-v2.rst, "memory.events").
// An inotify would do as well, and its instances are few: 128 for all of root's programs.
func (g *Group) eventV2(d dir, file string) (int, error) {
	fd, err := openAt(int(d.f.Fd()), filepath.Join(g.name, file), unix.O_RDONLY)
	if err != nil {
		return -1, err
	}
	_, _ = takeV2(fd) // what has happened is counted
	return fd, nil
}

// takeV2 reads a bit of the file, from its beginning: the next change is told then.
func takeV2(fd int) (int, error) {
	var word [8]byte
	return unix.Pread(fd, word[:], 0)
}

// Version 1 tells that memory has run out before it kills (mem_cgroup_oom_notify,
// mm/memcontrol-v1.c): the count lags behind the event, mostly for less than settle.
// A machine in need may take longer: then the event is raised again, so many times.
const (
	settle    = 20 * time.Millisecond
	lateLooks = 50
)

// awhile is how long Wait may take to see that its time is over, or that a group of
// version 2 has gone, of which the kernel tells nothing.
const awhile = 100 * time.Millisecond

// Wait waits until processes were killed, and returns the count since the group
// was made. Gone says that the group was removed; the count is the last one
// read then. With the killer switched off it returns when memory has run out,
// with the count unchanged.
func (w *OOMWatch) Wait(ctx context.Context) (kills uint64, gone bool, err error) {
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: w.Events()}}
		n, err := unix.Poll(fds, int(awhile.Milliseconds()))
		switch {
		case ctx.Err() != nil:
			return w.seen, false, ctx.Err()
		case err != nil && err != unix.EINTR:
			return w.seen, false, fmt.Errorf("wait for memory of cgroup %s: %w", w.g.full(), err)
		case n > 0:
			if news, gone, err := w.check(); news || gone || err != nil {
				return w.seen, gone, err
			}
		case !isThere(int(w.d.f.Fd()), w.g.name):
			return w.seen, true, nil
		}
	}
}

// Check is Wait for whoever waits for FD: it does not wait, but for the count to
// follow the event.
func (w *OOMWatch) Check() (kills uint64, gone bool, err error) {
	_, gone, err = w.check()
	return w.seen, gone, err
}

func (w *OOMWatch) check() (news, gone bool, err error) {
	if err := w.take(); err != nil && err != unix.EAGAIN && err != unix.EINTR && err != unix.ENODEV {
		return false, false, fmt.Errorf("look at memory of cgroup %s: %w", w.g.full(), err)
	}
	return w.look()
}

// take takes the event, so that the next one is told. What it was is seen elsewhere.
func (w *OOMWatch) take() error {
	if w.d.Unified {
		_, err := takeV2(w.fd)
		return err
	}
	var word [8]byte
	_, err := unix.Read(w.fd, word[:])
	return err
}

// look sees what an event was: news that the count has risen, or that memory has
// run out with the killer switched off.
func (w *OOMWatch) look() (news, gone bool, err error) {
	if !isThere(int(w.d.f.Fd()), w.g.name) {
		return false, true, nil
	}
	for end := time.Now().Add(settle); ; time.Sleep(time.Millisecond) {
		kills, err := w.g.OOMKills()
		if err != nil {
			return false, false, err
		}
		if kills > w.seen { // a group that goes this moment counts nothing
			w.seen, w.late = kills, 0
			return true, false, nil
		}
		if w.d.Unified { // another counter of the file has changed
			return false, false, nil
		}
		if time.Now().After(end) {
			break
		}
	}
	if w.disabled() {
		return true, false, nil
	}
	if w.late++; w.late > lateLooks { // nothing was killed: there was memory after all
		w.late = 0
		return false, false, nil
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(w.fd, one[:]); err != nil {
		return false, false, fmt.Errorf("look again at memory of cgroup %s: %w", w.g.full(), err)
	}
	return false, false, nil
}

// disabled reports whether version 1's killer is switched off for the group.
func (w *OOMWatch) disabled() bool {
	text, _ := readAt(int(w.d.f.Fd()), filepath.Join(w.g.name, "memory.oom_control"))
	line, _ := lineOf(text, "oom_kill_disable")
	return strings.TrimSpace(line) == "1"
}

// Close ends the watch. Nobody waits any more.
func (w *OOMWatch) Close() error { return w.file.Close() }
