package seccomp

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestFlagsOf(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	for name, c := range map[string]struct {
		profile specs.LinuxSeccomp
		want    uint32
		err     error
	}{
		"none said":       {specs.LinuxSeccomp{}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil},
		"none wanted":     {specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{}}, 0, nil},
		"log and tsync":   {specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"}}, unix.SECCOMP_FILTER_FLAG_LOG, nil},
		"unknown":         {specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_FLY"}}, 0, errdefs.ErrInvalidArgument},
		"listener":        {specs.LinuxSeccomp{Syscalls: notify, ListenerPath: "/l"}, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW | FlagNewListener, nil},
		"no path":         {specs.LinuxSeccomp{Syscalls: notify}, 0, errdefs.ErrInvalidArgument},
		"no rule":         {specs.LinuxSeccomp{ListenerPath: "/l"}, 0, errdefs.ErrInvalidArgument},
		"metadata alone":  {specs.LinuxSeccomp{ListenerMetadata: "x"}, 0, errdefs.ErrInvalidArgument},
		"own calls":       {specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}, ListenerPath: "/l"}, 0, errdefs.ErrInvalidArgument},
		"killable alone":  {specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}}, 0, errdefs.ErrInvalidArgument},
		"killable notify": {specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, Syscalls: notify, ListenerPath: "/l"}, unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | FlagNewListener, nil},
	} {
		got, err := FlagsOf(&c.profile)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %#x %v, want %#x %v", name, got, err, c.want, c.err)
		}
	}
	if known, taken := Flags(); len(known) != 4 || !slices.Contains(taken, specs.LinuxSeccompFlagLog) {
		t.Errorf("known %v, taken %v", known, taken)
	}
}

// TestDiskTrustsNothing finds what it kept, and nothing that somebody else may
// have had a hand in.
func TestDiskTrustsNothing(t *testing.T) {
	d := Disk{Dir: t.TempDir() + "/filters", Kernel: "1"}
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
	json := []byte(`{"profile":1}`)
	want, flags, err := d.Compile(p, json)
	if err != nil {
		t.Fatal(err)
	}
	got, gotFlags, ok := d.Find(json)
	if !ok || !slices.Equal(got, want) || gotFlags != flags {
		t.Fatalf("not found as kept: %v", ok)
	}
	if _, _, ok := (Disk{Dir: d.Dir, Kernel: "2"}).Find(json); ok {
		t.Error("found for another kernel")
	}
	path := d.name(json)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"mode":  func() error { return os.Chmod(path, 0o644) },
		"owner": func() error { return os.Chown(path, 1000, 0) },
		"flipped": func() error {
			return os.WriteFile(path, append(slices.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), 0o600)
		},
		"flags": func() error { b := slices.Clone(whole); b[4] ^= 2; return os.WriteFile(path, b, 0o600) },
		"cut":   func() error { return os.WriteFile(path, whole[:len(whole)-8], 0o600) },
		"link":  func() error { return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)) },
		"fifo":  func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := d.Find(json); ok {
			t.Errorf("%s: taken all the same", name)
		}
		os.Remove(path)
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := d.Find(json); !ok {
			t.Errorf("%s: not found again", name)
		}
	}
}
