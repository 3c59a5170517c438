package core

// UpdateContainer changes limits, also of a running container, and the restart
// policy. What is nil stays.
type UpdateContainer struct {
	ID      ContainerID     `json:"id"`
	Change  ResourcesChange `json:"change,omitzero"`
	Restart *Restart        `json:"restart,omitempty"`
}

// ResourcesChange are new values for limits; nil leaves one as it is.
type ResourcesChange struct {
	MemoryBytes            *int64  `json:"memory_bytes,omitempty"`
	MemorySwapBytes        *int64  `json:"memory_swap_bytes,omitempty"`
	MemoryReservationBytes *int64  `json:"memory_reservation_bytes,omitempty"`
	NanoCPUs               *int64  `json:"nano_cpus,omitempty"`
	CPUShares              *int64  `json:"cpu_shares,omitempty"`
	CPUPeriod              *int64  `json:"cpu_period_us,omitempty"`
	CPUQuota               *int64  `json:"cpu_quota_us,omitempty"`
	CPURealtimePeriod      *int64  `json:"cpu_realtime_period_us,omitempty"`
	CPURealtimeRuntime     *int64  `json:"cpu_realtime_runtime_us,omitempty"`
	PidsLimit              *int64  `json:"pids_limit,omitempty"`
	CpusetCPUs             *string `json:"cpuset_cpus,omitempty"`
	CpusetMems             *string `json:"cpuset_mems,omitempty"`
	BlkioWeight            *uint16 `json:"blkio_weight,omitempty"`
}

func (*UpdateContainer) name() string { return "container.update" }

func (c *UpdateContainer) subject(*State) Noun { return c.ID.noun() }
