// Package core decides. It knows what containers, images, layers, networks,
// drivers and jobs are, what may be done with them, and what that owes to the
// world; it touches nothing: no disk, no clock, no goroutine, no lock. Every
// behaviour of gantry can be tested, replayed and argued about here, without a
// machine.
//
// Three functions hold the whole engine:
//
//	Decide(s, request) → events, or a refusal     it changes nothing
//	s.Apply(event)     → nouns touched             it cannot fail
//	Next(s, noun)      → steps that noun owes      it remembers nothing
//
// # What a caller owes, in order
//
//  1. Requests come one at a time. Fill in what only the edge knows: the job's
//     id and the digest of the command's bytes (from whoever sent it), the actor
//     (from the kernel), the time. Secrets (CreateContainer.Secrets) are sealed
//     before Decide sees them.
//  2. Decide. No events and no error is an answer too: a repeated job, whose
//     receipt is State.Jobs[id], or a stale result or report.
//  3. Make the events durable, all of one decision or none. Nothing below may
//     happen before.
//  4. Apply each event, in order. Ask Next of every noun that Apply returned:
//     together with what was owed by the others, that is all that is owed.
//  5. Have the owed steps run, at most one at a time for each slot
//     (StepID.Slot). A step that Next no longer names is cancelled, and its end
//     awaited, before anything else runs in its slot.
//  6. Bring results back as FinishStep, ends of processes as ReportExit, changes
//     of health as ReportHealth, kills for want of memory as ReportOOM, what a
//     driver holds as ReportInventory. Repeat them until there is a receipt;
//     here they may come twice, late, or for what is long over.
//
// The state is the fold of the log. After a crash: fold the log, send
// StartEngine, ask Next of all nouns (State.Nouns), go on at 5.
//
// # How a noun is written
//
// A noun records what is wanted of it (Want) and what is held for it, slot by
// slot. Its verbs (container.go) say what each slot owes: it climbs while it is
// wanted running and gives back in reverse when it is not; undo is not code, it
// is order. A slot is absent, held, or unsure: an acquisition that failed, or
// that ended being owed while it may have been running, leaves its slot unsure,
// and what is unsure is released before anything else (Container.doubt).
//
// A step's id ends with the sequence of the event that made it owed
// (Slot.Turn), so that no id ever comes twice, and the event that follows from
// its result names that sequence as its cause.
//
// # How a verb is added
//
// One file, <noun>_<verb>.go: the command with its decide, the events it can
// cause with their apply, the finish of its steps; one line for each in
// catalogue.go. Names in the log are written by hand and are for ever; fields
// are only added, their meaning never changes.
package core
