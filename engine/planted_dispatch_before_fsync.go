//go:build planted_dispatch_before_fsync

package engine

const (
	plantedDispatchBeforeFsync = true
	plantedStaleFold           = false
	plantedLoseExit            = false
	plantedSkipEpoch           = false
)
