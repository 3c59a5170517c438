package core

import "time"

// The words for a container's health.
const (
	HealthStarting = "starting"
	Healthy        = "healthy"
	Unhealthy      = "unhealthy"
)

// HealthState is how a run's health stands.
type HealthState struct {
	Status string        `json:"status"`           // one of the words above
	Streak int           `json:"streak,omitempty"` // failures in a row
	Probes []HealthProbe `json:"probes,omitempty"` // the last ones before the change
	Since  time.Time     `json:"since"`            // of the status
	Fault  *Fault        `json:"fault,omitempty"`  // why it cannot be watched
}

// HealthProbe is how one probe went.
type HealthProbe struct {
	Begun    time.Time `json:"begun"`
	Ended    time.Time `json:"ended"`
	Code     int       `json:"code"`
	Output   string    `json:"output,omitempty"`
	TimedOut bool      `json:"timed_out,omitempty"`
}

// ReportHealth tells that a run's health has changed.
type ReportHealth struct {
	Container ContainerID   `json:"container"`
	Run       uint64        `json:"run"`
	Status    string        `json:"status"`
	Streak    int           `json:"streak,omitempty"`
	Probes    []HealthProbe `json:"probes,omitempty"` // the last five, output at most 4 KiB each
}

func (*ReportHealth) name() string { return "container.report-health" }
