package linux

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// longestOptions is what mount(2) takes: a page with its NUL.
const longestOptions = 4095

// mountOverlayByString is MountOverlay for kernels before 6.8, whose overlay
// does not take layers one by one, and whose new mount interface takes no
// string of more than 255 bytes. All options go to mount(2) as one string, in a
// mount namespace of a thread of its own; a detached copy is what stays.
//
// Layers whose names do not fit into a page go in as descriptors, whose names
// below /proc/self/fd are short: some 200 of them fit. More are refused (E2BIG).
func mountOverlayByString(lower []string, upper, work string, flags []string) (Detached, error) {
	data := overlayOptions(lower, upper, work, flags)
	asDescriptors := len(data) > longestOptions
	var m Detached
	var err error
	onOwnThread(func() {
		if err = leaveMounts(); err != nil {
			return
		}
		if asDescriptors {
			names, closeAll, openErr := descriptorNames(lower)
			defer closeAll()
			if openErr != nil {
				err = openErr
				return
			}
			data = overlayOptions(names, upper, work, flags)
		}
		if len(data) > longestOptions {
			err = fmt.Errorf("overlay of %d layers: options of %d bytes, at most %d before Linux 6.8: %w",
				len(lower), len(data), longestOptions, unix.E2BIG)
			return
		}
		m, err = mountAside(lower[0], data)
	})
	return m, err
}

// overlayOptions are all options as one string.
func overlayOptions(lower []string, upper, work string, flags []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace
	names := make([]string, len(lower))
	for i, l := range lower {
		names[i] = escape(l)
	}
	options := append([]string{"lowerdir=" + strings.Join(names, ":")}, flags...)
	if upper != "" {
		// No list: a colon is a plain character here.
		escape = strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace
		options = append(options, "upperdir="+escape(upper), "workdir="+escape(work))
	}
	return strings.Join(options, ",")
}

// descriptorNames opens directories and names them by their descriptors. They
// may be closed as soon as the overlay is mounted.
func descriptorNames(dirs []string) (names []string, closeAll func(), err error) {
	var open []int
	closeAll = func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, closeAll, fmt.Errorf("open layer %s: %w", dir, err)
		}
		open = append(open, fd)
		names = append(names, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	return names, closeAll, nil
}

// onOwnThread runs f on a thread that ends with it, so that f may change what
// threads have of their own. It is never the process's first: that one cannot
// end, and /proc/self shows what it has.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f) // on another one: this one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// leaveMounts gives the thread a mount namespace where nobody sees what it does.
func leaveMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// mountAside mounts an overlay over a directory and takes a detached copy. The
// thread has left everybody's mounts.
func mountAside(over, data string) (Detached, error) {
	if err := unix.Mount("overlay", over, "overlay", 0, data); err != nil {
		return Detached{}, fmt.Errorf("mount overlay with %s: %w", data, err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, over, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return Detached{}, fmt.Errorf("clone mount of overlay: %w", err)
	}
	return Detached{os.NewFile(uintptr(fd), "overlay")}, nil
}
