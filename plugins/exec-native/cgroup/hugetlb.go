package cgroup

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// hugetlb plans limits of huge pages: of reservations where the kernel has
// them (5.7), and of use in any case.
func (l *limits) hugetlb(limits []specs.LinuxHugepageLimit) {
	for _, h := range limits {
		version := l.on("hugepageLimits", "hugetlb", "hugetlb")
		size, ok := hugeSize(h.Pagesize)
		if !ok {
			l.invalid("hugepageLimits", "page size %q: want something like 2MB", h.Pagesize)
		}
		if version == 0 || !ok {
			return
		}
		reserved, used := "hugetlb."+h.Pagesize+".rsvd.limit_in_bytes", "hugetlb."+h.Pagesize+".limit_in_bytes"
		if version == 2 {
			reserved, used = "hugetlb."+h.Pagesize+".rsvd.max", "hugetlb."+h.Pagesize+".max"
		}
		w := Write{Field: "hugepageLimits " + h.Pagesize, Controller: "hugetlb", Unified: version == 2, Value: unsigned(h.Limit)}
		w.Back = unsigned(h.Limit / size * size)
		if most := uint64(mostBytes(l.page)); h.Limit >= most/size*size {
			// The counter ends below: version 1 shows its end, version 2 a word.
			w.Value, w.Back = "-1", unsigned(most/size*size)
			if version == 2 {
				w.Value, w.Back = "max", "max"
			}
		}
		w.File, w.Optional = reserved, true
		l.add(w)
		w.File, w.Optional = used, false
		l.add(w)
	}
}

// hugeSize reads a page size as the file names spell it: "64KB", "2MB", "1GB".
func hugeSize(s string) (uint64, bool) {
	for unit, shift := range map[string]int{"KB": 10, "MB": 20, "GB": 30} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 20)
			return n << shift, err == nil && n > 0
		}
	}
	return 0, false
}
