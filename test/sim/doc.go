// Package sim runs the real core, engine, dispatch and event log in a world that
// is made up, under one scheduler and from one seed, and looks for what must
// never happen.
//
// # What is real and what is not
//
// Real: package core; engine.Open, Turn, Wake, Command, Finish, Report, Heard,
// Refused and Snapshot; the journal of package eventlog, on a disk in memory
// (eventlog/faultfs). Made up: the clock, the bus (wire.go), clients (client.go),
// driver hosts (host.go, run.go), and the machine that drivers work on
// (machine.go). The engine starts no goroutine of its own, so one goroutine calls
// everything, in an order that the seed decides: the same seed gives the same
// story.
//
// # What goes wrong
//
//   - Messages (commands, steps, cancellations, results, heartbeats, reports,
//     exits, and the answers to all of them) are lost, doubled, delayed, and
//     overtake each other. Two things keep their order, as they do on one
//     connection of the bus: what is sent to one slot of a driver (a step, its
//     repetition, its cancellation), and what one driver's host reports of its
//     instances. A report that arrives twice does so at once: an inventory is true
//     until its instance's first step, and a host that repeats one waits for the
//     receipt of the last copy before that.
//   - Steps fail before, in the midst of and behind their effect; they hang, and
//     are cancelled. Drivers do not start.
//   - The engine's process is killed before any of its effects: before a write,
//     in the midst of one, before and behind the fdatasync, before each answer, each
//     step. With the machine's power, what was not synced is lost or torn.
//   - A driver dies, or its host; steps that ran are then undone, half done or
//     done. The machine restarts: processes, endpoints, networks are gone.
//   - The disk is full, a write fails, an fsync fails. The wall clock jumps while
//     no engine runs.
//   - Somebody takes away what drivers hold, or puts something there.
//   - Containers end by themselves, fall ill, are killed for want of memory, and are
//     started again by their policies; execs run in them, they are paused, updated
//     and restarted, share namespaces and have user namespaces of their own.
//
// # What must hold
//
// At every moment: no step is sent before its cause is on the disk; a slot has
// one step in flight; nothing is released while it is made or used; nothing is made
// without what it stands on; what an older engine's time says changes nothing; a
// job that was accepted is accepted once, under one sequence, and its id is good for
// no other command; no step succeeds twice.
//
// After every crash: what was acknowledged is in the log, record for record.
//
// At rest: both folds and the log's are the same state; no job is open; the world
// holds what the log says, and no more; every end of a process and of an exec is
// known, with its code; health and kills for want of memory are what was told last; no
// end has brought two restarts; no two containers have the same ids. In the end everything can be removed, nothing is left, and the log
// verifies.
//
// Over all seeds: every event, step, class of failure, fault of the wire and of the
// disk, and every crash point has occurred (cover.go). Each planted bug (build tags
// planted_…, in core and engine) is found.
package sim
