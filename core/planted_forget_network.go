//go:build planted_forget_network

package core

const (
	plantedForgetNetwork = true
	plantedLateFinish    = false
)
