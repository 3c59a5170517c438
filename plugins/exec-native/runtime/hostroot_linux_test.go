package runtime

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// without takes namespaces out of the specification.
func (b *box) without(types ...specs.LinuxNamespaceType) {
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return slices.Contains(types, n.Type) })
}

// mountsBelow counts the mounts at and below a directory in our own namespace. Those
// elsewhere are others': all tests of this machine mount in it.
func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if at := strings.Fields(line)[4]; at == dir || strings.HasPrefix(at, dir+"/") {
			n++
		}
	}
	return n
}

// TestNoMountNamespace: the container's mounts are the host's, below its root,
// and all of them go with it.
func TestNoMountNamespace(t *testing.T) {
	subreaper(t)
	b := newBox(t, "readlink /proc/self/ns/mnt; ls /; grep -c . /proc/self/mounts > /dev/null && echo proc; echo ready; sleep 100")
	b.without(specs.MountNamespace)
	b.spec.Linux.MaskedPaths = []string{"/etc/passwd"}
	root := b.bundle + "/rootfs"
	path := b.start()
	if n := mountsBelow(t, root); n < 5 {
		t.Errorf("%d mounts below the root on the host", n)
	}
	o := b.do("exec", b.id, "/bin/sh", "-c", "readlink /proc/self/ns/mnt; ls /bin/busybox; wc -c /etc/passwd; ls /usr 2>&1")
	want := ownNamespace("mnt") + "\n/bin/busybox\n0 /etc/passwd\n"
	if !strings.HasPrefix(o.out, want) || !strings.Contains(o.out, "No such file") {
		t.Errorf("exec: %+v, want %q", o, want)
	}
	awaitText(t, path, "\nproc\nready\n")
	if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), ownNamespace("mnt")+"\nbin\n") {
		t.Errorf("inside: %s", text)
	}
	if st := b.state(); st.Status != specs.StateRunning {
		t.Errorf("%+v", st)
	}
	b.must("delete", "--force", b.id)
	if n := mountsBelow(t, b.bundle); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

// TestNoMountNamespaceFails leaves no mount behind.
func TestNoMountNamespaceFails(t *testing.T) {
	for name, spoil := range map[string]func(b *box){
		"file system": func(b *box) { b.addMount(specs.Mount{Destination: "/x", Type: "nosuchfs"}) },
		"hook":        func(b *box) { b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/false"}}} },
		"user namespace": func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 10}}
			b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			b.without(specs.MountNamespace)
			spoil(b)
			if o := b.run(); o.code != exitFailed {
				t.Errorf("%+v", o)
			}
			if n := mountsBelow(t, b.bundle); n != 0 {
				t.Errorf("%d mounts are left", n)
			}
		})
	}
}
