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
	file *os.File // an eventfd of version 1, an inotify of version 2
	fd   int      // of file, which stays non-blocking that way
	d    dir
	seen uint64
	late int // looks since the last event after which the count had not risen yet
}

// FD can be read from when there may be something to Check. It is closed by Close.
func (w *OOMWatch) FD() int { return w.fd }

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

// eventV2 makes an inotify that tells of each change of the file (cgroup-v2.rst,
// "memory.events"), and of groups removed beside it: the file itself goes
// without a word. The path is that of the descriptor: no name is resolved.
func (g *Group) eventV2(d dir, file string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("inotify_init1", err)
	}
	parent := fmt.Sprintf("/proc/self/fd/%d/", d.f.Fd())
	_, err = unix.InotifyAddWatch(fd, parent+g.name+"/"+file, unix.IN_MODIFY)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, parent, unix.IN_DELETE|unix.IN_ONLYDIR)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("inotify_add_watch", err)
	}
	return fd, nil
}

// Version 1 tells that memory has run out before it kills (mem_cgroup_oom_notify,
// mm/memcontrol-v1.c): the count lags behind the event, mostly for less than settle.
// A machine in need may take longer: then the event is raised again, so many times.
const (
	settle    = 20 * time.Millisecond
	lateLooks = 50
)

// wordRoom is enough for any event: an inotify's with the longest name.
const wordRoom = unix.SizeofInotifyEvent + unix.NAME_MAX + 1

// Wait waits until processes were killed, and returns the count since the group
// was made. Gone says that the group was removed; the count is the last one
// read then. With the killer switched off it returns when memory has run out,
// with the count unchanged.
func (w *OOMWatch) Wait(ctx context.Context) (kills uint64, gone bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var buf [wordRoom]byte
		_, err := w.file.Read(buf[:]) // what it was is seen below
		if ctx.Err() != nil {
			return w.seen, false, ctx.Err()
		}
		if err != nil {
			return w.seen, false, fmt.Errorf("wait for memory of cgroup %s: %w", w.g.full(), err)
		}
		if news, gone, err := w.look(); news || gone || err != nil {
			return w.seen, gone, err
		}
	}
}

// Check is Wait for whoever waits for FD: it does not wait, but for the count to
// follow the event.
func (w *OOMWatch) Check() (kills uint64, gone bool, err error) {
	var buf [wordRoom]byte
	for {
		n, err := unix.Read(w.fd, buf[:])
		if n <= 0 || !w.d.Unified { // an eventfd is read once
			if err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return w.seen, false, fmt.Errorf("look at memory of cgroup %s: %w", w.g.full(), err)
			}
			break
		}
	}
	_, gone, err = w.look()
	return w.seen, gone, err
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

// Close ends the watch, and any Wait.
func (w *OOMWatch) Close() error { return w.file.Close() }
