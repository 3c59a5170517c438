package runtime

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notification and answer are struct seccomp_notif and seccomp_notif_resp
// (include/uapi/linux/seccomp.h).
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id         uint64
	val        int64
	err, flags int32
}

const (
	notifRecv = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifSend = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
)

// TestSeccompNotify has an agent answer a call of the container.
func TestSeccompNotify(t *testing.T) {
	b := newBox(t, "mkdir /tmp/d; echo end")
	path := filepath.Join(t.TempDir(), "agent")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "meta",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
	}
	told := make(chan error, 1)
	var state specs.ContainerProcessState
	go func() { told <- actAsAgent(l, &state) }()
	o := b.run()
	if err := <-told; err != nil {
		t.Fatalf("agent: %v; %+v", err, o)
	}
	if !strings.Contains(o.err, "Owner died") || !strings.Contains(o.out, "end") {
		t.Errorf("%+v", o)
	}
	if state.Metadata != "meta" || state.State.ID != b.id || state.Pid == 0 || len(state.Fds) != 1 || state.Fds[0] != specs.SeccompFdName {
		t.Errorf("%+v", state)
	}
}

// actAsAgent takes a listener and answers one call with EOWNERDEAD.
func actAsAgent(l *net.UnixListener, state *specs.ContainerProcessState) error {
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer c.Close()
	buf, oob := make([]byte, 16<<10), make([]byte, 64)
	n, m, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(buf[:n], state); err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	var call notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), notifRecv, uintptr(unsafe.Pointer(&call))); errno != 0 {
		return fmt.Errorf("receive: %w", errno)
	}
	reply := answer{id: call.id, err: -int32(unix.EOWNERDEAD)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), notifSend, uintptr(unsafe.Pointer(&reply))); errno != 0 {
		return fmt.Errorf("answer: %w", errno)
	}
	return nil
}
