//go:build planted_late_finish

package core

const (
	plantedForgetNetwork = false
	plantedLateFinish    = true
)
