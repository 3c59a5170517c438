package cgroup

import (
	"errors"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseTree(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/mem\040ory rw - cgroup cgroup rw,memory,release_agent=/x
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
36 31 0:29 / /elsewhere/cpu rw - cgroup cgroup rw,cpu,cpuacct
37 31 0:33 /docker/x /bound rw - cgroup cgroup rw,pids
garbage
`
	tree, err := parseTree([]byte(hybrid))
	want := []Hierarchy{
		{Controllers: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct"},
		{Controllers: []string{"memory"}, Mount: "/sys/fs/cgroup/mem ory"},
		{Controllers: []string{"name=systemd"}, Mount: "/sys/fs/cgroup/systemd"},
		{Unified: true, Mount: "/sys/fs/cgroup/unified"},
	}
	if err != nil || !reflect.DeepEqual(tree.Hierarchies, want) {
		t.Errorf("%+v %v\nwant %+v", tree.Hierarchies, err, want)
	}
	if v := tree.Version(); v != "hybrid" {
		t.Errorf("version %s", v)
	}
	if c := tree.Controllers(); !reflect.DeepEqual(c, []string{"cpu", "cpuacct", "memory"}) {
		t.Errorf("controllers %v", c)
	}
	two, err := parseTree([]byte("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"))
	if err != nil || two.Version() != "v2" {
		t.Errorf("%+v %v, want v2", two, err)
	}
	if _, err := parseTree([]byte("1 2 0:1 / / rw - ext4 /dev/vda rw\n")); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("no cgroups: %v", err)
	}
}
