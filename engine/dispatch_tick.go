package engine

import (
	"maps"
	"slices"
	"time"

	"github.com/gantryd/gantry/core"
)

// deadline is what a driver's host is given for a step: the whole of it, or for
// a long one the silence after which it is cancelled.
func deadline(st core.Step) time.Duration {
	switch st.(type) {
	case core.LoadArchive, core.ApplyLayer, core.AttachNetwork, core.DetachNetwork, core.SignalProcess, core.NameImage,
		core.Freeze, core.Thaw, core.UpdateResources, core.WatchHealth, core.UnwatchHealth:
		return 30 * time.Second
	case core.StartProcess, core.StartExec, core.ReleaseProcess, core.RemoveLayer, core.RemoveImage, core.ReleaseRootfs, core.Reconcile:
		return 2 * time.Minute
	}
	return time.Minute
}

// engineDeadline is when the engine itself cancels a step whose host did not.
func engineDeadline(st core.Step) time.Duration { return deadline(st) + 5*time.Second }

// isLong reports whether a step may take as long as it likes while it shows
// progress: its size is the user's affair.
func isLong(st core.Step) bool {
	switch st.(type) {
	case core.LoadArchive, core.ApplyLayer:
		return true
	}
	return false
}

// isRelease reports whether a step gives something back: when it fails, it is
// owed anew, for ever.
func isRelease(st core.Step) bool {
	switch st.(type) {
	case core.ReleaseRootfs, core.DetachNetwork, core.ReleaseProcess, core.RemoveLog, core.RemoveImage, core.RemoveLayer,
		core.RemoveNetwork, core.StopDriver, core.GiveBack, core.Reconcile, core.NameImage,
		core.Thaw, core.ReleaseUserNS, core.UnwatchHealth:
		return true
	}
	return false
}

// meets says which steps of a container lead to nothing before the last of them has
// ended: those that a process waits for, or those that are the end of a container. 0
// is any other step.
func meets(st core.Step) int {
	switch st := st.(type) {
	case core.PrepareRootfs, core.AttachNetwork:
		return 1
	case core.ReleaseRootfs, core.DetachNetwork:
		return 2
	case core.ReleaseProcess:
		if st.Exec == "" {
			return 2
		}
	}
	return 0
}

// tick does what time asks for: sends again what nobody has acknowledged,
// cancels what takes too long, hands out what was to be tried later. It gives
// the waits that have ended.
func (d *dispatch) tick(now time.Time, send func(parcel)) []core.StepID {
	d.mu.Lock()
	if d.next.After(now) {
		d.release(send)
		return nil
	}
	d.next = never()
	var ended []core.StepID
	for _, n := range slices.SortedFunc(maps.Keys(d.nouns), byNoun) {
		for _, sl := range d.nouns[n] {
			switch {
			case sl.flight == nil:
				d.turn(sl, now)
			case sl.flight.lane != "":
				d.look(sl.flight, sl, now)
			case !sl.flight.until.After(now):
				ended = append(ended, sl.flight.step.ID())
				sl.flight.until = now.Add(askAgain) // until it is recorded
				d.wakeAt(sl.flight.until)
			default:
				d.wakeAt(sl.flight.until)
			}
		}
	}
	d.drain(now)
	d.release(send)
	return ended
}

// look sends a step, or its cancellation, again if there was no sign of it for
// too long, and cancels it when its time is over.
func (d *dispatch) look(f *flight, sl *slot, now time.Time) {
	if !f.cancelling && !f.until.After(now) {
		d.cancel(sl, now)
		f.late = true
		return
	}
	again := f.sent.Add(askAgain)
	if !f.heard.IsZero() || f.sends > 3 {
		quiet := f.sent
		if f.heard.After(quiet) {
			quiet = f.heard
		}
		again = quiet.Add(askAgainTaken)
	}
	if !again.After(now) {
		f.sent, again = now, now.Add(askAgainTaken)
		f.sends++
		d.outbox = append(d.outbox, parcel{step: f.step, try: f.try, job: sl.job, cancel: f.cancelling})
		if f.heard.IsZero() && f.sends <= 3 {
			again = now.Add(askAgain)
		}
	}
	d.wakeAt(again)
	if !f.cancelling {
		d.wakeAt(f.until)
	}
}

// driverOf is the driver of a step that is in flight.
func (d *dispatch) driverOf(id core.StepID) (kind, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sl := d.find(id, 0); sl != nil {
		return sl.flight.step.Driver()
	}
	return "", ""
}

// idle reports whether no driver has anything to do: what nobody has taken, and
// what is to be tried later, does not count.
func (d *dispatch) idle(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, slots := range d.nouns {
		for _, sl := range slots {
			f := sl.flight
			_, wait := sl.owed.(core.Wait)
			switch {
			case f != nil && f.lane != "" && (!f.heard.IsZero() || now.Sub(f.began) < askAgain):
				return false
			case f == nil && sl.owed != nil && !wait && !sl.after.After(now):
				return false
			}
		}
	}
	return true
}
