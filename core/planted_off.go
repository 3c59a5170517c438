//go:build !planted_forget_network && !planted_late_finish

package core

// The bugs that the simulator must find, each planted by the build tag of its
// file. All are off in every other build.
const (
	plantedForgetNetwork = false // an attachment that is under way when the want turns is not undone
	plantedLateFinish    = false // the result of a step that is no longer owed is taken for the slot's present one
)
