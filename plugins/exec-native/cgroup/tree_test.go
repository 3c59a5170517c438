package cgroup

import (
	"reflect"
	"testing"
)

func TestTree(t *testing.T) {
	one := Hierarchy{Controllers: []string{"cpu", "cpuacct"}, Mount: "/cpu"}
	named := Hierarchy{Controllers: []string{"name=systemd"}, Mount: "/systemd"}
	two := Hierarchy{Unified: true, Controllers: []string{"hugetlb", "cpu"}, Mount: "/unified"}
	for want, hierarchies := range map[string][]Hierarchy{
		"v1": {one, named}, "v2": {two}, "hybrid": {one, named, two},
	} {
		if got := (Tree{hierarchies}).Version(); got != want {
			t.Errorf("version %s, want %s", got, want)
		}
	}
	if c := (Tree{[]Hierarchy{one, named, two}}).Controllers(); !reflect.DeepEqual(c, []string{"cpu", "cpuacct", "hugetlb"}) {
		t.Errorf("controllers %v", c)
	}
}
