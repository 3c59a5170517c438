package exectest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

// initName is the name under which the test binary is a container's init.
const initName = "exectest-init"

// plan is what the init does.
type plan struct {
	Start    execdriver.Start
	Program  string
	UID, GID int
	Caps     uint64
}

// containerInit makes the container around itself, then becomes the program.
// What goes wrong is written to descriptor 3, which the program does not get.
func containerInit() {
	runtime.LockOSThread() // seccomp and bounding sets are a thread's own
	fault := os.NewFile(3, "fault")
	syscall.CloseOnExec(3)
	var p plan
	err := json.Unmarshal([]byte(os.Getenv("PLAN")), &p)
	for _, step := range []func() error{p.joinNetwork, p.mount, p.enter, p.confine, p.become} {
		if err == nil {
			err = step()
		}
	}
	fmt.Fprint(fault, err)
	os.Exit(1)
}

func (p plan) joinNetwork() error {
	if p.Start.Network.Mode != netdriver.NamespacePath {
		return nil
	}
	ns, err := os.Open(p.Start.Network.Path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != p.Start.Network.Inode {
		return fmt.Errorf("the namespace has inode %d, want %d", st.Ino, p.Start.Network.Inode)
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

func (p plan) mount() error {
	root := p.Start.Rootfs[0].Source
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("dev", root+"/dev", "tmpfs", 0, ""); err != nil {
		return err
	}
	for name, number := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "random": unix.Mkdev(1, 8), "tty": unix.Mkdev(5, 0),
	} {
		if err := unix.Mknod(root+"/dev/"+name, unix.S_IFCHR|0o666, int(number)); err != nil {
			return err
		}
	}
	for _, m := range p.Start.Mounts {
		if err := unix.Mount(m.Source, root+m.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
		if slices.Contains(m.Options, "ro") {
			if err := readOnly(root + m.Target); err != nil {
				return err
			}
		}
	}
	if p.Start.ReadOnly {
		return readOnly(root)
	}
	return nil
}

func readOnly(path string) error {
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func (p plan) enter() error {
	if err := unix.Sethostname([]byte(p.Start.Hostname)); err != nil {
		return err
	}
	if err := unix.Chroot(p.Start.Rootfs[0].Source); err != nil {
		return err
	}
	return os.Chdir(filepath.Join("/", p.Start.Process.Cwd))
}

func (p plan) confine() error {
	if p.Start.Security.Seccomp == "" {
		if err := allowAll(); err != nil {
			return fmt.Errorf("seccomp: %w", err)
		}
	}
	for c := range uintptr(64) {
		if p.Caps&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL {
				break // the last one there is
			}
		}
	}
	if p.Start.Security.NoNewPrivileges {
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return nil
}

// allowAll loads a seccomp filter that allows everything.
func allowAll() error {
	const ret, allow = 0x06, 0x7fff0000 // BPF_RET|BPF_K, SECCOMP_RET_ALLOW
	filter := []unix.SockFilter{{Code: ret, K: allow}}
	program := unix.SockFprog{Len: 1, Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func (p plan) become() error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(p.GID); err != nil {
		return err
	}
	if err := syscall.Setuid(p.UID); err != nil {
		return err
	}
	return syscall.Exec(p.Program, p.Start.Process.Args, p.Start.Process.Env)
}

// defaultCaps are those that Docker leaves by default.
const defaultCaps = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<13 | 1<<18 | 1<<27 | 1<<29 | 1<<31

func capabilities(s execdriver.Security) (uint64, error) {
	known := map[string]uint64{"CHOWN": 1 << capChown, "NET_ADMIN": 1 << capNetAdmin, "SYS_ADMIN": 1 << capSysAdmin, "ALL": 1<<64 - 1}
	bits := uint64(defaultCaps)
	if s.Privileged {
		bits = known["ALL"]
	}
	for _, list := range []struct {
		names []string
		set   bool
	}{{s.CapAdd, true}, {s.CapDrop, false}} {
		for _, name := range list.names {
			b, ok := known[strings.TrimPrefix(name, "CAP_")]
			if !ok {
				return 0, driver.Errorf(errdefs.ErrInvalidArgument, "the capability %q is not known", name)
			}
			if list.set {
				bits |= b
			} else {
				bits &^= b
			}
		}
	}
	return bits, nil
}

// lookUpUser reads names and groups in the root filesystem's own files.
func lookUpUser(root, user string) (uid, gid int, err error) {
	name, group, grouped := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	if uid, gid, err = lookUp(root+"/etc/passwd", name); err != nil || !grouped {
		return uid, gid, err
	}
	gid, _, err = lookUp(root+"/etc/group", group)
	return uid, gid, err
}

// lookUp finds the third and fourth field of the line whose first or third is
// name; a number that no line has stands for itself.
func lookUp(file, name string) (int, int, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if f[0] == name || f[2] == name {
			id, _ := strconv.Atoi(f[2])
			second, _ := strconv.Atoi(f[3])
			return id, second, nil
		}
	}
	id, err := strconv.Atoi(name)
	if err != nil {
		return 0, 0, driver.Errorf(errdefs.ErrInvalidArgument, "the image knows no %q", name)
	}
	return id, 0, nil
}
