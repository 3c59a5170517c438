package driverhost

import "time"

// patience is how long the host waits for what.
type patience struct {
	start     time.Duration // for the handshake of a new instance, then for its Info, then for its List
	drain     time.Duration // for calls in flight when an instance is to end
	grace     time.Duration // for the end of a step that was cancelled at its deadline; then the instance is ended
	fence     time.Duration // for the last process of an instance that was killed; one in an uninterruptible sleep outlives it
	heartbeat time.Duration // how often the engine hears of a step that still runs
	good      time.Duration // an instance that lived so long starts the back-off anew
	backoff   time.Duration // between the second and the third start of a driver that ends by itself; doubles
	longest   time.Duration // bound of the back-off
	hold      time.Duration // a step waits so long for a driver that is backing off, then it is told why
	rescan    time.Duration // how often the driver path is looked through for new programs
}

func usual() patience {
	return patience{
		start: 10 * time.Second, drain: 5 * time.Second, grace: 10 * time.Second, fence: 10 * time.Second,
		heartbeat: time.Second, good: 10 * time.Second, backoff: 20 * time.Millisecond, longest: 30 * time.Second,
		hold: 500 * time.Millisecond, rescan: 5 * time.Second,
	}
}

// pauseAfter is how long to wait after so many failures in a row: none after the
// first, then longer each time.
func (p patience) pauseAfter(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	return min(p.backoff<<min(failures-2, 20), p.longest)
}
