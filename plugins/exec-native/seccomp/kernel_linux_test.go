package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childVar makes the test binary a child that loads the filter and calls.
const childVar = "GANTRY_TEST_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		child()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child loads the default filter into all its threads and prints what the
// kernel answers to some calls.
func child() {
	runtime.LockOSThread()
	prog, err := NewCache("").Default(someCaps())
	if err != nil {
		fmt.Println("compile:", err)
		return
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println("no_new_privs:", err)
		return
	}
	fprog := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		fmt.Println("load:", errno)
		return
	}
	call := func(name string, number, a, b, c uintptr) {
		_, _, errno := unix.RawSyscall(number, a, b, c)
		fmt.Printf("%s %d\n", name, int(errno))
	}
	call("getppid", unix.SYS_GETPPID, 0, 0, 0)
	call("mount", unix.SYS_MOUNT, 0, 0, 0)
	call("bpf", unix.SYS_BPF, 9999, 0, 0)
	call("clone3", unix.SYS_CLONE3, 0, 0, 0)
	call("unshare", unix.SYS_UNSHARE, 0, 0, 0)
	call("newer", 900, 0, 0, 0)
	call("socket-unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	call("socket-vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	call("socket-alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	call("personality-query", unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	call("personality-odd", unix.SYS_PERSONALITY, 0x0800000, 0, 0)
	if runtime.GOARCH == "amd64" {
		call("x32-mount", x32Bit|165, 0, 0, 0)
	}
}

// TestKernelLoadsAndObeys loads the default filter for real.
func TestKernelLoadsAndObeys(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childVar + "=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	want := []string{
		"getppid 0",
		fmt.Sprintf("mount %d", unix.EPERM),
		fmt.Sprintf("bpf %d", unix.EPERM),
		fmt.Sprintf("clone3 %d", unix.ENOSYS),
		fmt.Sprintf("unshare %d", unix.EPERM),
		fmt.Sprintf("newer %d", unix.ENOSYS),
		"socket-unix 0",
		fmt.Sprintf("socket-vsock %d", unix.EPERM),
		fmt.Sprintf("socket-alg %d", unix.EPERM),
		"personality-query 0",
		fmt.Sprintf("personality-odd %d", unix.EPERM),
	}
	if runtime.GOARCH == "amd64" {
		want = append(want, fmt.Sprintf("x32-mount %d", unix.EPERM))
	}
	if got := strings.TrimSpace(string(out)); got != strings.Join(want, "\n") {
		t.Errorf("child said\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
