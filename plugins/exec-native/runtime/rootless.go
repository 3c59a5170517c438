package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// innerEnv tells this program that it runs in the user namespace of the
// container that it makes.
const innerEnv = "_GANTRY_OCI_INNER"

// isInner reports it. Nobody else is believed: the machine's root has no use for
// it.
func isInner() bool { return os.Getenv(innerEnv) != "" && inUserNamespace() }

// inUserNamespace reports whether this is not the machine's first one, whose
// number is the same everywhere (PROC_USER_INIT_INO, include/linux/proc_ns.h).
func inUserNamespace() bool {
	const first = 0xEFFFFFFD
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino != first
}

// isRootless reports whether rights of the machine's root are missing, so that
// what needs them is left out with a word.
func (g *globals) isRootless() bool {
	switch g.rootless {
	case "true":
		return true
	case "false":
		return false
	}
	return os.Geteuid() != 0 || inUserNamespace()
}

// enterUser runs this same command in the container's user namespace, in which
// an ordinary user may mount: its only way. entered is false for root.
func enterUser(g *globals, o createOptions) (code int, entered bool, err error) {
	if os.Geteuid() == 0 {
		return 0, false, nil
	}
	maps, err := ownMaps(o.bundle)
	if err != nil {
		return exitFailed, true, err
	}
	sockets := activated()
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", g.root}, os.Args[1:]...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), innerEnv+"=1", "LISTEN_FDS="+strconv.Itoa(sockets))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for fd := 3; fd < 3+o.preserve+sockets; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "passed on"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: maps[0], GidMappings: maps[1]}
	signals := make(chan os.Signal, 128)
	signal.Notify(signals, passedSignals()...)
	if err := cmd.Start(); err != nil {
		return exitFailed, true, errclass.Errorf(errdefs.ErrPermissionDenied, "make the container's user namespace: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return exitFailed, true, err
	}
	signal.Stop(signals)
	return cmd.ProcessState.ExitCode(), true, nil
}

// ownMaps are the maps of users and groups that an ordinary user may write: of
// the own id alone.
func ownMaps(dir string) (maps [2][]syscall.SysProcIDMap, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return maps, err
	}
	b, err := readConfig(filepath.Join(dir, configFile), dir)
	if err != nil {
		return maps, err
	}
	if b.spec.Linux == nil {
		return maps, errclass.Errorf(errdefs.ErrInvalidArgument, "linux is missing")
	}
	if has, joined := oci.HasNamespace(b.spec, specs.UserNamespace); !has || joined {
		return maps, errclass.Errorf(errdefs.ErrPermissionDenied, "user %d is not root: linux.namespaces needs a user namespace of the container's own (see spec --rootless)", os.Geteuid())
	}
	for i, m := range [2][]specs.LinuxIDMapping{b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings} {
		own, field := os.Geteuid(), "linux.uidMappings"
		if i == 1 {
			own, field = os.Getegid(), "linux.gidMappings"
		}
		if len(m) != 1 || m[0].Size != 1 || int(m[0].HostID) != own || m[0].ContainerID != 0 {
			return maps, errclass.Errorf(errdefs.ErrPermissionDenied, "%s: an ordinary user may map the own id alone, 0 to %d: for more, run this within a user namespace that has them", field, own)
		}
		maps[i] = []syscall.SysProcIDMap{{ContainerID: 0, HostID: own, Size: 1}}
	}
	return maps, nil
}

// settleIn takes the user namespace that this program runs in for the one that
// the container asks for.
func (b *bundle) settleIn() {
	l := b.spec.Linux
	l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	l.UIDMappings, l.GIDMappings = nil, nil
}

// withoutGroup says whether a container may do without a cgroup that could not
// be made: where rights are missing, and no limit was asked for.
func (c *creation) withoutGroup(err error, r *specs.LinuxResources) error {
	denied := errors.Is(err, errdefs.ErrPermissionDenied) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
	if !denied || !c.g.isRootless() {
		return err
	}
	if r.Memory != nil || r.CPU != nil || r.Pids != nil || r.BlockIO != nil || r.Network != nil || len(r.HugepageLimits)+len(r.Rdma)+len(r.Unified) > 0 {
		return fmt.Errorf("limits without the rights of root: %w", err)
	}
	c.g.log.note("container %s has no cgroup: %v", c.ID, err)
	return nil
}
