//go:build planted_skip_epoch

package engine

const (
	plantedDispatchBeforeFsync = false
	plantedStaleFold           = false
	plantedLoseExit            = false
	plantedSkipEpoch           = true
)
