package execnative

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/driver"
	"github.com/gantryd/gantry/sdk/execdriver"
	"github.com/gantryd/gantry/sdk/netdriver"
	"golang.org/x/sys/unix"
)

func testMap() driver.IDMap {
	ids := []driver.IDMapping{{Container: 0, Host: 300_000, Size: 65536}}
	return driver.IDMap{UIDs: ids, GIDs: ids}
}

// mapped asks for a container with a user namespace of its own.
func (b *bench) mapped(script string) execdriver.Start {
	b.t.Helper()
	r := b.request(script)
	r.IDMap = testMap()
	var err error
	if r.UserNS, err = b.d.HoldUserNS(context.Background(), r.Container, r.IDMap); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := b.d.ReleaseUserNS(context.Background(), r.Container); err != nil {
			b.t.Error(err)
		}
	})
	m := &r.Rootfs[0]
	for _, o := range m.Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			if err := os.Chown(upper, 300_000, 300_000); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	m.Options = append(m.Options, driver.OptionIDMap)
	return r
}

func TestHoldUserNS(t *testing.T) {
	b := newBench(t)
	const c = "c1"
	held, err := b.d.HoldUserNS(context.Background(), c, testMap())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(held.Path, &st); err != nil || st.Ino != held.Inode || held.Mode != netdriver.NamespacePath {
		t.Errorf("%+v: inode %d (%v)", held, st.Ino, err)
	}
	pid := strings.Split(held.Path, "/")[2]
	if text, err := os.ReadFile("/proc/" + pid + "/uid_map"); err != nil || strings.Join(strings.Fields(string(text)), " ") != "0 300000 65536" {
		t.Errorf("map %q (%v)", text, err)
	}
	if text, _ := os.ReadFile("/proc/" + pid + "/cgroup"); !strings.Contains(string(text), b.cfg.Cgroup+"/shims") {
		t.Errorf("its cgroups:\n%s", text)
	}
	old := b.d
	b.open() // as after the driver's death
	old.close()
	again, err := b.d.HoldUserNS(context.Background(), c, testMap())
	if err != nil || again != held {
		t.Errorf("repeated after a restart: %+v, %v; first %+v", again, err, held)
	}
	other := testMap()
	other.UIDs = []driver.IDMapping{{Container: 0, Host: 400_000, Size: 65536}}
	if _, err := b.d.HoldUserNS(context.Background(), c, other); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another map: %v", err)
	}
	want := driver.Item{Kind: "userns", Key: c, State: "held", Namespace: held.Path, Inode: held.Inode}
	items, err := b.d.List(context.Background())
	if err == nil && len(items) == 1 {
		items[0].PID = 0
	}
	if err != nil || !slices.Contains(items, want) {
		t.Errorf("list: %+v %v", items, err)
	}
	for range 2 {
		if err := b.d.ReleaseUserNS(context.Background(), c); err != nil {
			t.Error(err)
		}
	}
	// A dead holder shows its namespaces until its parent has reaped it.
	b.eventually("it is held by nobody", func() bool { return unix.Stat(held.Path, &st) != nil || st.Ino != held.Inode })
	for _, m := range []driver.IDMap{{}, {UIDs: testMap().UIDs}, {UIDs: []driver.IDMapping{{Container: 1, Host: 1, Size: 1}}, GIDs: testMap().GIDs}} {
		if _, err := b.d.HoldUserNS(context.Background(), c, m); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// TestUserNamespace of a container: root inside, nobody outside, on shared
// layers, with a network namespace and devices of its own.
func TestUserNamespace(t *testing.T) {
	b := newBench(t)
	if err := os.Chown(b.lower+"/etc/group", 1000, 1001); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	os.Chmod(out, 0o777)
	r := b.mapped(`id -u; stat -c %u:%g /etc/passwd /etc/group /; echo new > /etc/mine; cat /proc/self/uid_map; echo x > /dev/null; head -c 2 /dev/zero | wc -c
		ip -o link | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; mount -t tmpfs x /tmp 2>&1 | wc -l; hostname; touch /out/f; mkdir /sys/fs/cgroup/pids/x 2>&1 | wc -l
		cat /sys/class/net/lo/operstate; ls -d /dev/pts /dev/mqueue /dev/shm | wc -l; echo up; sleep 1000`)
	r.Mounts = bindOut(out)
	s, err := b.d.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("it is up", func() bool { return strings.HasSuffix(b.output(s.Log), "up\n") })
	want := "0\n0:0\n1000:1001\n0:0\n         0     300000      65536\n2\n1\n0\n1\nbox\n1\nunknown\n3\nup\n"
	if got := b.output(s.Log); got != want {
		t.Errorf("inside:\n%s\nwant\n%s", got, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", s.PID), &st); err != nil || st.Uid != 300_000 {
		t.Errorf("from outside it runs as %d (%v)", st.Uid, err)
	}
	if err := unix.Stat(out+"/f", &st); err != nil || st.Uid != 300_000 {
		t.Errorf("what it wrote outside belongs to %d (%v)", st.Uid, err)
	}
	if namespaceOf(t, s.PID, "user") == namespaceOf(t, "self", "user") {
		t.Error("it is in the host's user namespace")
	}
	x := execRequest(r.Key, "id -u; id -un; test $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) && echo same; echo y > /etc/too")
	if got, e := b.exec(x, ""); got != "0\nroot\nsame\n" || e.Code != 0 {
		t.Errorf("exec: %q %+v", got, e)
	}
	x = execRequest(r.Key, "id -u")
	x.Process.User = "bob"
	if got, e := b.exec(x, ""); got != "1000\n" || e.Code != 0 {
		t.Errorf("exec of bob: %q %+v", got, e)
	}
	if list, err := b.copyOut(copyOf(r, "/etc/mine", true)); err != nil || !slices.Equal(list, []string{"mine 0 644 0:0 new"}) {
		t.Errorf("copy out: %q %v", list, err)
	}
	if err := b.copyIn(copyOf(r, "/etc", true), file("in", "text")); err != nil {
		t.Error(err)
	}
	x = execRequest(r.Key, "stat -c %u /etc/in")
	if got, _ := b.exec(x, ""); got != "0\n" {
		t.Errorf("what was copied in belongs to %q", got)
	}
	if err := b.d.Signal(context.Background(), r.Key, 9); err != nil {
		t.Fatal(err)
	}
	b.wait(r.Key)
	if list, err := b.copyOut(copyOf(r, "/etc/group", false)); err != nil || len(list) != 1 || !strings.HasPrefix(list[0], "group 0 644 1000:1001") {
		t.Errorf("copy out of a stopped one: %q %v", list, err)
	}
	// The layer is as it was.
	if err := unix.Stat(b.lower+"/etc/passwd", &st); err != nil || st.Uid != 0 {
		t.Errorf("the layer's file belongs to %d (%v)", st.Uid, err)
	}
}
