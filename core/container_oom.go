package core

import "time"

// ReportOOM tells how often the kernel has killed in a run for want of memory.
type ReportOOM struct {
	Container ContainerID `json:"container"`
	Run       uint64      `json:"run"`
	Count     uint64      `json:"count"` // since the run began
	Time      time.Time   `json:"time,omitzero"`
}

func (*ReportOOM) name() string { return "container.report-oom" }
