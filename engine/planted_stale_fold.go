//go:build planted_stale_fold

package engine

const (
	plantedDispatchBeforeFsync = false
	plantedStaleFold           = true
	plantedLoseExit            = false
	plantedSkipEpoch           = false
)
