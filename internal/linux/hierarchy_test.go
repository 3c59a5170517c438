package linux

import (
	"reflect"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/mem\040ory rw - cgroup cgroup rw,memory,release_agent=/x
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
36 31 0:29 / /elsewhere/cpu rw - cgroup cgroup rw,cpu,cpuacct
37 31 0:33 /docker/x /bound rw - cgroup cgroup rw,pids
38 31 0:34 / /cg - cgroupish cgroup rw,pids
garbage - cgroup
`
	all := ParseHierarchies([]byte(hybrid))
	want := []Hierarchy{
		{Controllers: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct"},
		{Controllers: []string{"memory"}, Mount: "/sys/fs/cgroup/mem ory"},
		{Controllers: []string{"name=systemd"}, Mount: "/sys/fs/cgroup/systemd"},
		{Unified: true, Mount: "/sys/fs/cgroup/unified"},
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("%+v\nwant %+v", all, want)
	}
	if !all[0].Has("cpu") || all[0].Has("memory") || all[3].Has("cpu") {
		t.Error("Has")
	}
	if all[0].Label() != "cpu,cpuacct" || all[3].Label() != "unified" || all[0].Key() != "cpu,cpuacct" || all[3].Key() != "" {
		t.Errorf("labels %s %s, keys %s %q", all[0].Label(), all[3].Label(), all[0].Key(), all[3].Key())
	}
	if all := ParseHierarchies([]byte("1 2 0:1 / / rw - ext4 /dev/vda rw\n")); len(all) != 0 {
		t.Errorf("no cgroups: %v", all)
	}
}
