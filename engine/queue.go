package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// request is one thing to decide on.
type request struct {
	command core.Command
	job     core.JobID // empty for results, reports and the engine's own
	digest  string
	actor   core.Actor
	client  string
	reason  string
	fence   *fence // of results and reports that came over the bus
	own     int    // of a failure that the engine itself found: which handing-out of the step

	size      int       // of what was sent, in bytes
	until     time.Time // it may wait so long for others to be recorded with; zero: not at all
	essential bool      // may use the log's reserve
	reply     func(bus.Receipt, error)
}

// fence is who sends a result or a report.
type fence struct {
	epoch    uint64
	kind     string
	driver   string
	instance string
	try      int // which handing-out of the step it answers; 0: not said
}

// newRequest reads a client's command. What it calls a container becomes the
// container's id, what it leaves to the engine the engine's own default.
func (e *Engine) newRequest(actor bus.Actor, c bus.Command) (request, error) {
	command, err := core.DecodeCommand(c.Name, c.Body)
	if err != nil {
		return request{}, err
	}
	switch command.(type) {
	case *core.FinishStep, *core.ReportExit, *core.ReportInventory, *core.ReportDriver, *core.ReportHealth, *core.ReportOOM,
		*core.StartEngine, *core.StopEngine, *core.ForgetJobs:
		return request{}, errclass.Errorf(errdefs.ErrPermissionDenied, "%s is for the engine itself", c.Name)
	}
	if err := refuseSealed(command); err != nil {
		return request{}, err
	}
	if err := e.settleName(command, core.JobID(c.Job)); err != nil {
		return request{}, err
	}
	e.fill(command)
	sum := sha256.Sum256(c.Body)
	return request{
		command: command, job: core.JobID(c.Job), digest: hex.EncodeToString(sum[:16]),
		actor:  core.Actor{UID: actor.UID, GID: actor.GID, PID: actor.PID},
		client: c.Client, reason: c.Reason, size: len(c.Body), essential: isEssential(command),
	}, nil
}

// isEssential reports whether a command must be recordable when the disk is full:
// what makes room, and what ends something.
func isEssential(c core.Command) bool {
	switch c.(type) {
	case *core.StopContainer, *core.KillContainer, *core.RemoveContainer, *core.DropImage,
		*core.DropNetwork, *core.UnpauseContainer, *core.CancelJob, *core.ForgetJobs, *core.DisableDriver:
		return true
	}
	return false
}

// queue holds what was sent and not yet taken. Clients' commands cannot displace
// results and reports: those have a queue of their own.
type queue struct {
	wake chan struct{} // holds one token when there is something to take

	// mu guards the rest.
	mu          sync.Mutex
	commands    []request
	reports     []request
	maxCommands int
	maxReports  int
	closed      bool // no commands any more; results and reports still
}

func newQueue(commands, reports int) *queue {
	return &queue{wake: make(chan struct{}, 1), maxCommands: commands, maxReports: reports}
}

func (q *queue) putCommand(r request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errclass.Errorf(errdefs.ErrUnavailable, "the engine is stopping and takes no new commands")
	}
	if len(q.commands) >= q.maxCommands {
		return errclass.Errorf(errdefs.ErrResourceExhausted, "%d commands wait already: send it again later", len(q.commands))
	}
	q.commands = append(q.commands, r)
	q.poke()
	return nil
}

func (q *queue) putReport(r request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.reports) >= q.maxReports {
		return errclass.Errorf(errdefs.ErrResourceExhausted, "%d results and reports wait already: send it again later", len(q.reports))
	}
	q.reports = append(q.reports, r)
	q.poke()
	return nil
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// ready is when there is something to take, if there is anything.
func (q *queue) ready() (at time.Time, some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.readyAt()
}

// readyAt is ready for whoever has the lock: as soon as one request waits for nothing,
// or has waited long enough, all of them can go.
func (q *queue) readyAt() (at time.Time, some bool) {
	if len(q.commands) > 0 {
		return time.Time{}, true
	}
	for i := range q.reports {
		if until := q.reports[i].until; !some || until.Before(at) {
			at, some = until, true
		}
	}
	return at, some
}

// take gives at most n requests, and no more than fit into one write: results
// and reports first, but never without room for commands, so that neither
// starves the other.
func (q *queue) take(n int, now time.Time) []request {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, some := q.readyAt(); !some || at.After(now) {
		return nil
	}
	size := 0
	reports := fitting(q.reports, max(n-len(q.commands), n*3/4), &size)
	commands := fitting(q.commands, n-reports, &size)
	batch := make([]request, 0, reports+commands)
	batch = append(append(batch, q.reports[:reports]...), q.commands[:commands]...)
	q.reports, q.commands = rest(q.reports, reports), rest(q.commands, commands)
	if len(q.reports)+len(q.commands) > 0 {
		q.poke()
	}
	return batch
}

// fitting is how many of the first n requests fit into what is left of a write;
// the first of all always does.
func fitting(s []request, n int, size *int) int {
	for i := range min(n, len(s)) {
		if *size > 0 && *size+s[i].size > maxBatchBytes {
			return i
		}
		*size += s[i].size + 1
	}
	return min(n, len(s))
}

// rest is s without its first n, whose memory can go.
func rest(s []request, n int) []request {
	if n == len(s) {
		return nil
	}
	clear(s[:n])
	return s[n:]
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.commands) + len(q.reports)
}

// close refuses further commands. Those that wait are given back.
func (q *queue) close() []request {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	waiting := q.commands
	q.commands = nil
	return waiting
}
