package cgroup

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// rdma plans the controller rdma, which both versions spell alike.
func (l *limits) rdma(devices map[string]specs.LinuxRdma) {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := devices[name]
		version := l.on("rdma", "rdma", "rdma")
		if version == 0 {
			return
		}
		var words, reset []string
		if d.HcaHandles != nil {
			words, reset = append(words, "hca_handle="+unsigned(uint64(*d.HcaHandles))), append(reset, "hca_handle=max")
		}
		if d.HcaObjects != nil {
			words, reset = append(words, "hca_object="+unsigned(uint64(*d.HcaObjects))), append(reset, "hca_object=max")
		}
		if len(words) == 0 || name == "" || strings.ContainsAny(name, " \t\n") {
			l.invalid("rdma", "device %q: want hcaHandles or hcaObjects", name)
		}
		back := strings.Join(words, " ")
		l.add(Write{Field: "rdma", Controller: "rdma", Unified: version == 2, File: "rdma.max", Value: name + " " + back,
			Key: name, Back: back, Rule: sameLine, Reset: name + " " + strings.Join(reset, " ")})
	}
}
