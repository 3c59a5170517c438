// Package engine decides, records and asks. It is the only writer of the log.
//
//	Command ─┐                                            ┌─▶ replies
//	Finish  ─┼─▶ queues ─▶ decide ─▶ log (one fdatasync) ─┼─▶ committed records
//	Report  ─┘             on head                        └─▶ steps ─▶ Hosts
//	                                                          (Next over durable)
//
// # One loop, two folds
//
// Turn takes what is queued as one batch. Each request is decided on head, and
// its events are applied there at once, so that two commands of one batch see
// each other. One Append makes all of them durable. Only then are the same
// events applied to durable, and replies, records and steps go out: nothing is
// acted on that may be forgotten. Queries read durable under a lock that is
// never held across a write.
//
// Some results lead to nothing before others are there: a process waits for its root
// filesystem and its networks, a removal for all that is given back. Such a one waits a
// few milliseconds for the others, if they are on their way, and is recorded with them.
//
// A failed fsync ends the engine. A write for which there is no room does not:
// head becomes a copy of durable again, what is essential (results, exits, stop,
// remove, prune) is decided anew and recorded in the log's reserve, and the rest is
// refused with the class resource exhausted.
//
// # What is owed and what is in flight
//
// core.Next says what is owed; dispatch remembers only what was handed out and
// has not ended. A slot has one step in flight at a time. A step that Next no
// longer names is cancelled, and nothing further is handed out for its slot
// until its end is told.
//
// # Without goroutines
//
// An Engine starts no goroutine and no timer of its own: Run is a loop around
// Turn and Wake, and Snapshot is called by whoever runs it. A simulator calls the
// same methods in an order of its own.
package engine
