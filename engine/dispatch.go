package engine

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
)

// The engine's patience.
const (
	askAgain      = time.Second          // without an acknowledgement the step is sent again
	askAgainTaken = 5 * time.Second      // so long after the last sign of life of one that was acknowledged
	releaseTries  = 5                    // failures of a release until one is recorded
	acquireFor    = 30 * time.Second     // an acquisition that is unavailable is tried again so long
	nobodyFor     = 3 * time.Second      // a step that no host takes has failed after so long
	companyFor    = 5 * time.Millisecond // a result that changes nothing by itself waits so long for another one
	retryLeast    = 10 * time.Millisecond
	retryMost     = time.Minute
)

// slot is one slot of a noun: what it owes, and what is in flight for it.
type slot struct {
	key  string // core.StepID.Slot
	noun core.Noun

	owed   core.Step // what Next names now; nil for nothing
	job    string    // whose progress the step tells
	queued bool      // it is in its lane's waiting list

	flight *flight     // what was handed out and has not ended
	taken  core.StepID // the last step that a host has taken

	failures int         // in a row, of the same step, or of releases that are owed anew
	failing  time.Time   // when the first of them was
	step     core.StepID // the last one that was owed
	last     string      // what the last failure said
	after    time.Time   // not handed out before
}

// flight is a step that was handed out and whose end is not known.
type flight struct {
	step       core.Step
	lane       string // "kind/name"; empty for the engine's own clock
	try        int
	sends      int
	began      time.Time
	heard      time.Time // last sign of life; zero before the first
	sent       time.Time // the last time
	until      time.Time // of a wait: when it ends; else when it is cancelled
	cancelling bool      // Next no longer names it, or it has taken too long
	told       bool      // its end is queued
	late       bool      // it is cancelled because it has taken too long
}

// lane is what one driver is doing.
type lane struct {
	flying  int
	waiting []*slot
}

// dispatch hands out what is owed. It remembers what is in flight, and nothing
// else: what is owed comes from core.Next every time.
type dispatch struct {
	epoch     uint64
	perDriver int

	// mu guards the rest. Turn changes it; queries and heartbeats come from
	// other goroutines. It is never held while anything is sent.
	mu     sync.Mutex
	nouns  map[core.Noun][]*slot
	lanes  map[string]*lane
	freed  []string    // lanes that have got room
	again  []core.Noun // to be asked what they owe
	tries  int         // of all steps together
	next   time.Time   // when tick has something to do; not later than that
	outbox []parcel
}

// parcel is what is to be sent.
type parcel struct {
	step   core.Step
	try    int
	job    string
	cancel bool
}

func newDispatch(perDriver int) *dispatch {
	return &dispatch{
		perDriver: perDriver, nouns: make(map[core.Noun][]*slot), lanes: make(map[string]*lane), next: never(),
	}
}

// never is later than any engine lives.
func never() time.Time { return time.Unix(1<<40, 0) }

// update finds out what the nouns owe and hands out what can be; send is called
// for each step and each cancellation, after the lock is released.
func (d *dispatch) update(s *core.State, nouns []core.Noun, now time.Time, send func(parcel)) {
	nouns = slices.Clone(nouns)
	slices.SortFunc(nouns, byNoun)
	d.mu.Lock()
	for _, n := range slices.Compact(nouns) {
		d.ask(s, n, now)
	}
	d.drain(now)
	d.release(send)
}

func byNoun(a, b core.Noun) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.ID, b.ID))
}

// drain lets those go that waited for room in their lanes.
func (d *dispatch) drain(now time.Time) {
	for len(d.freed) > 0 {
		l := d.lanes[d.freed[0]]
		d.freed = d.freed[1:]
		for l.flying < d.perDriver && len(l.waiting) > 0 {
			next := l.waiting[0]
			l.waiting = l.waiting[1:]
			next.queued = false
			d.turn(next, now)
			d.tidy(next.noun)
		}
	}
}

// release sends what is in the outbox, without the lock that the caller holds.
func (d *dispatch) release(send func(parcel)) {
	out := d.outbox
	d.outbox = nil
	d.mu.Unlock()
	for _, p := range out {
		send(p)
	}
}

// ask compares what n owes with what is in flight for it.
func (d *dispatch) ask(s *core.State, n core.Noun, now time.Time) {
	for _, sl := range d.nouns[n] {
		sl.owed = nil
	}
	for _, st := range core.Next(s, n) {
		sl := d.slot(n, st.ID().Slot())
		if sl == nil {
			sl = &slot{key: st.ID().Slot(), noun: n}
			d.nouns[n] = append(d.nouns[n], sl)
		}
		sl.owed, sl.job = st, jobOf(s, n)
		if id := st.ID(); sl.step != id {
			if !isRelease(st) || sl.step.Verb() != id.Verb() {
				sl.failures, sl.last, sl.after = 0, "", time.Time{}
			}
			sl.step = id
		}
	}
	for _, sl := range d.nouns[n] {
		d.turn(sl, now)
	}
	d.tidy(n)
}

func (d *dispatch) slot(n core.Noun, key string) *slot {
	for _, sl := range d.nouns[n] {
		if sl.key == key {
			return sl
		}
	}
	return nil
}

// tidy forgets the slots of n that owe nothing and have nothing in flight.
func (d *dispatch) tidy(n core.Noun) {
	kept := slices.DeleteFunc(d.nouns[n], func(sl *slot) bool {
		return sl.owed == nil && sl.flight == nil && !sl.queued
	})
	d.nouns[n] = kept
	if len(kept) == 0 {
		delete(d.nouns, n)
	}
}

// turn does what is to be done for a slot: cancel what is no longer owed, or hand
// out what is.
func (d *dispatch) turn(sl *slot, now time.Time) {
	f := sl.flight
	if f != nil {
		if !f.cancelling && (sl.owed == nil || sl.owed.ID() != f.step.ID()) {
			d.cancel(sl, now)
		}
		return
	}
	if sl.owed == nil || sl.queued {
		return
	}
	if sl.after.After(now) {
		d.wakeAt(sl.after)
		return
	}
	kind, name := sl.owed.Driver()
	if kind == "" {
		d.wait(sl, now)
		return
	}
	id := kind + "/" + name
	l := d.lanes[id]
	if l == nil {
		l = &lane{}
		d.lanes[id] = l
	}
	if l.flying >= d.perDriver {
		l.waiting, sl.queued = append(l.waiting, sl), true
		return
	}
	d.hand(sl, l, id, now)
}

func (d *dispatch) hand(sl *slot, l *lane, id string, now time.Time) {
	l.flying++
	d.tries++
	sl.flight = &flight{
		step: sl.owed, lane: id, try: d.tries, began: now, sent: now, sends: 1, until: now.Add(engineDeadline(sl.owed)),
	}
	d.outbox = append(d.outbox, parcel{step: sl.owed, try: d.tries, job: sl.job})
	d.wakeAt(now.Add(askAgain))
	d.wakeAt(sl.flight.until)
}

// wait begins a wait of the engine's own clock. It never takes longer than its
// length by the monotonic clock, also after a restart.
func (d *dispatch) wait(sl *slot, now time.Time) {
	w, ok := sl.owed.(core.Wait)
	if !ok {
		return
	}
	left := min(w.Length, w.Until.Sub(now.Round(0)))
	sl.flight = &flight{step: sl.owed, began: now, sent: now, heard: now, until: now.Add(max(0, left))}
	d.wakeAt(sl.flight.until)
}

// cancel takes back what is in flight. Its end is awaited, but for a wait, which
// is our own.
func (d *dispatch) cancel(sl *slot, now time.Time) {
	f := sl.flight
	if f.lane == "" {
		sl.flight = nil
		d.turn(sl, now)
		return
	}
	f.cancelling, f.sent, f.sends = true, now, 1
	d.outbox = append(d.outbox, parcel{step: f.step, try: f.try, cancel: true})
	d.wakeAt(now.Add(askAgain))
}

// find is the slot that has the step in flight; try is which handing-out of it, 0
// if that is not known.
func (d *dispatch) find(id core.StepID, try int) *slot {
	sl := d.slot(id.Noun(), id.Slot())
	if sl == nil || sl.flight == nil || sl.flight.step.ID() != id || try != 0 && try != sl.flight.try {
		return nil
	}
	return sl
}

// heard notes a sign of life.
func (d *dispatch) heard(id core.StepID, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sl := d.find(id, 0); sl != nil {
		sl.flight.heard, sl.taken = now, id
		if isLong(sl.flight.step) {
			sl.flight.until = now.Add(engineDeadline(sl.flight.step))
		}
	}
}

// untaken reports whether no host has taken the step in any of its tries. One that
// was owed before this engine began may have been taken from an earlier one.
func (d *dispatch) untaken(id core.StepID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	sl := d.find(id, 0)
	return sl != nil && sl.taken != id && id.Turn() > d.epoch
}

// told notes that a step's end is queued. It reports whether nothing is owed by that
// alone, since another step of the same container is on its way whose end is needed,
// too: both can be recorded at once.
func (d *dispatch) told(id core.StepID) (company bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sl := d.find(id, 0)
	if sl == nil {
		return false
	}
	sl.flight.told = true
	together := meets(sl.flight.step)
	return together != 0 && slices.ContainsFunc(d.nouns[sl.noun], func(other *slot) bool {
		f := other.flight
		return f != nil && !f.told && !f.cancelling && meets(f.step) == together
	})
}

// retry reports whether a failure is to be tried again without being recorded;
// if so, the flight is over. A host's word that something is unavailable is not
// the last one: the driver is being started again. Nor is the failure of a step that
// was taken back: it may be owed again by now, or by what is decided beside it.
func (d *dispatch) retry(id core.StepID, try int, f *core.Fault, host bool, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	sl := d.find(id, try)
	switch {
	case sl == nil:
		return false
	case sl.flight.cancelling && !sl.flight.late:
		d.land(sl)
		d.again = append(d.again, sl.noun)
		d.wakeAt(now)
		return true
	case sl.owed == nil || sl.owed.ID() != id:
		return false
	case isRelease(sl.owed) && (sl.failures+1)%releaseTries != 0:
	case !isRelease(sl.owed) && host && f.Class == "unavailable" && (sl.failures == 0 || now.Sub(sl.failing) < acquireFor):
	default:
		return false
	}
	d.failed(sl, f, now)
	d.land(sl)
	d.wakeAt(sl.after)
	return true
}

// overtaken reports whether that try of the step is over: its failure was told before
// and this is a copy. If the step is still owed, or owed again by what is decided beside
// it, it is handed out anew.
func (d *dispatch) overtaken(id core.StepID, try int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return try != 0 && d.find(id, try) == nil
}

// failed counts a failure and says when the slot is tried again.
func (d *dispatch) failed(sl *slot, f *core.Fault, now time.Time) {
	if sl.failures == 0 {
		sl.failing = now
	}
	sl.failures++
	sl.last = f.Message
	sl.after = now.Add(backoff(sl.failures))
}

// refused notes that no host has taken a step, or that none knows the step that
// it was to cancel. It reports whether the step has failed by that.
func (d *dispatch) refused(id core.StepID, try int, cancelled bool, err error, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	sl := d.find(id, try)
	if sl == nil {
		return false
	}
	f := sl.flight
	switch {
	case f.cancelling && (cancelled || f.heard.IsZero()):
		d.land(sl) // nobody has it: it has ended, or never begun
		d.again = append(d.again, sl.noun)
		d.wakeAt(now)
		return false
	case cancelled || !f.heard.IsZero():
		return false
	}
	return !errdefs.IsUnavailable(err) || now.Sub(f.began) >= nobodyFor
}

// asked gives the nouns that are to be asked anew what they owe.
func (d *dispatch) asked() []core.Noun {
	d.mu.Lock()
	defer d.mu.Unlock()
	again := d.again
	d.again = nil
	return again
}

// backoff is how long to wait after so many failures: 10 ms, doubling, to 1 min.
func backoff(failures int) time.Duration {
	return min(retryLeast<<min(failures-1, 20), retryMost)
}

// ended says that a step's end was taken by the core, or that it was stale. What
// the slot owes next is found out by the next update of its noun.
func (d *dispatch) ended(id core.StepID, try int, f *core.Fault, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sl := d.find(id, try)
	if sl == nil {
		return
	}
	switch {
	case sl.flight.cancelling && !sl.flight.late:
	case f != nil:
		d.failed(sl, f, now)
	default:
		sl.failures, sl.last, sl.after = 0, "", time.Time{}
	}
	d.land(sl)
}

// land takes the flight off the slot.
func (d *dispatch) land(sl *slot) {
	id := sl.flight.lane
	sl.flight = nil
	if l := d.lanes[id]; l != nil {
		l.flying--
		d.freed = append(d.freed, id)
	}
}

// isLate reports whether the step is being cancelled because it took too long.
func (d *dispatch) isLate(id core.StepID, try int) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sl := d.find(id, try); sl != nil && sl.flight.late {
		return deadline(sl.flight.step), true
	}
	return 0, false
}

func (d *dispatch) wakeAt(t time.Time) {
	if t.Before(d.next) {
		d.next = t
	}
}

// wake is when tick has something to do.
func (d *dispatch) wake() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next
}

// busy is how many steps drivers have in flight.
func (d *dispatch) busy() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, l := range d.lanes {
		n += l.flying
	}
	return n
}
