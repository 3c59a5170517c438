//go:build !planted_dispatch_before_fsync && !planted_stale_fold && !planted_lose_exit && !planted_skip_epoch

package engine

// The bugs that the simulator must find, each planted by the build tag of its
// file. All are off in every other build.
const (
	plantedDispatchBeforeFsync = false // steps go out before what made them owed is durable
	plantedStaleFold           = false // commands of one batch do not see each other
	plantedLoseExit            = false // an exit gets a receipt and is not recorded
	plantedSkipEpoch           = false // results of an older engine's time are taken
)
