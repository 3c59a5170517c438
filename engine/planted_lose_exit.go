//go:build planted_lose_exit

package engine

const (
	plantedDispatchBeforeFsync = false
	plantedStaleFold           = false
	plantedLoseExit            = true
	plantedSkipEpoch           = false
)
