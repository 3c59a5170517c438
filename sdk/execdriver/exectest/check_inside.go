package exectest

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/netdriver"
)

func (f fixture) insideChecks() []check {
	return []check{
		{Name: "process", Promise: "The program gets its arguments, environment, directory and user; a name is looked up in PATH.", Run: f.checkProcess},
		{Name: "users", Promise: "User takes names and numbers, by the image's own files.", Run: f.checkUsers},
		{Name: "isolation", Promise: "The program is the first process of its own namespaces and sees nothing of the machine's root.", Run: f.checkIsolation},
		{Name: "network-host", Promise: "Network mode host stays in the machine's namespace.", Run: f.checkNetworkHost},
		{Name: "network-path", Promise: "Network mode path joins the namespace at the path, if its inode is the one told.", Run: f.checkNetworkPath},
		{Name: "read-only", Promise: "A read-only root filesystem cannot be written to, and a read-only mount neither.", Run: f.checkReadOnly},
	}
}

func (f fixture) checkProcess(ctx context.Context, b *bench) {
	r := f.script(b, "")
	r.Process.Args = []string{"sh", "-c", `echo "$0|$1|$#" > /out/args; echo "$GREETING" > /out/env; pwd > /out/pwd; cat /proc/sys/kernel/hostname > /out/hostname`, "zero", "one and a half"}
	r.Process.Cwd = "/var/empty"
	run(ctx, b, r)
	for name, want := range map[string]string{
		"args": "zero|one and a half|1", "env": "hello", "pwd": "/var/empty", "hostname": "box",
	} {
		if got := said(b, r, name); got != want {
			b.Errorf("the program's %s: %q, want %q", name, got, want)
		}
	}
}

func (f fixture) checkUsers(ctx context.Context, b *bench) {
	for user, want := range map[string]string{
		"": "0:0", "alice": "1234:2345", "1234": "1234:2345", "77:88": "77:88", "alice:staff": "1234:3456", "99": "99:0",
	} {
		r := f.script(b, `echo "$(id -u):$(id -g)" > /out/id`)
		r.Process.User = user
		run(ctx, b, r)
		if got := said(b, r, "id"); got != want {
			b.Errorf("user %q is %s inside, want %s", user, got, want)
		}
	}
}

// namespaceOf is this thread's own namespace of a kind, as readlink shows it.
func namespaceOf(b *bench, kind string) string {
	b.Helper()
	own, err := os.Readlink("/proc/thread-self/ns/" + kind)
	if err != nil {
		b.Fatalf("read our own namespace: %v", err)
	}
	return own
}

func (f fixture) checkIsolation(ctx context.Context, b *bench) {
	secret := b.TempDir() // of the machine: must not be seen inside
	r := f.script(b, `echo $$ > /out/self
for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n > /out/$n; done
ls -d /proc/[0-9]* > /out/processes
ls `+secret+` > /out/secret 2>&1 || echo hidden > /out/verdict
ls /dev > /out/dev
cat /proc/net/dev > /out/links`)
	run(ctx, b, r)
	if got := said(b, r, "self"); got != "1" {
		b.Errorf("the program is process %s of its namespace, want 1", got)
	}
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		if got := said(b, r, kind); got == namespaceOf(b, kind) || got == "" {
			b.Errorf("the program is in the machine's %s namespace (%s)", kind, got)
		}
	}
	if n := len(strings.Fields(said(b, r, "processes"))); n > 3 {
		b.Errorf("/proc shows %d processes", n)
	}
	if got := said(b, r, "verdict"); got != "hidden" {
		b.Errorf("a directory of the machine is seen inside: %s", said(b, r, "secret"))
	}
	for _, node := range []string{"null", "zero", "random", "tty"} {
		if !strings.Contains(said(b, r, "dev"), node) {
			b.Errorf("/dev lacks %s", node)
		}
	}
	if links := strings.Count(said(b, r, "links"), ":"); links != 1 {
		b.Errorf("a new network namespace has %d links, want only lo:\n%s", links, said(b, r, "links"))
	}
}

func (f fixture) checkNetworkHost(ctx context.Context, b *bench) {
	r := f.script(b, `readlink /proc/self/ns/net > /out/net`)
	r.Network = netdriver.Namespace{Mode: netdriver.NamespaceHost}
	run(ctx, b, r)
	if got, own := said(b, r, "net"), namespaceOf(b, "net"); got != own {
		b.Errorf("the program is in %s, the machine in %s", got, own)
	}
}

func (f fixture) checkNetworkPath(ctx context.Context, b *bench) {
	var ns *os.File
	var name string
	var err error
	conform.OnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			name, _ = os.Readlink("/proc/thread-self/ns/net")
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if err != nil {
		b.Fatalf("make a network namespace: %v", err)
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		b.Fatalf("look at the namespace: %v", err)
	}
	r := f.script(b, `readlink /proc/self/ns/net > /out/net`)
	r.Network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: pathOf(ns), Inode: st.Ino}
	run(ctx, b, r)
	if got := said(b, r, "net"); got != name {
		b.Errorf("the program is in %s, want %s", got, name)
	}
	r = f.script(b, `exit 0`)
	r.Network = netdriver.Namespace{Mode: netdriver.NamespacePath, Path: pathOf(ns), Inode: st.Ino + 1}
	if _, err := b.Driver().Start(ctx, r); err == nil {
		b.Errorf("Start joined a namespace with another inode than the one told")
	}
}

func (f fixture) checkReadOnly(ctx context.Context, b *bench) {
	r := f.script(b, `touch /written 2> /dev/null && echo root > /out/written; touch /ro/written 2> /dev/null && echo mount >> /out/written; touch /out/done; exit 0`)
	r.ReadOnly = true
	source := b.TempDir()
	r.Mounts = append(r.Mounts, driver.Mount{Type: "bind", Source: source, Target: "/run", Options: []string{"ro", "rbind"}})
	r.Process.Args[2] = strings.ReplaceAll(r.Process.Args[2], "/ro/", "/run/")
	run(ctx, b, r)
	if raw, err := os.ReadFile(r.Mounts[0].Source + "/written"); err == nil {
		b.Errorf("the program could write to: %s", raw)
	}
	if _, err := os.Stat(r.Mounts[0].Source + "/done"); err != nil {
		b.Errorf("the program could not write to a mount that is not read-only: %v", err)
	}
}
