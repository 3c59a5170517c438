// Package faultfs is a filesystem in memory that does what disks do to a log:
// it loses and tears what was not synced, fails writes and fsyncs, runs full,
// and flips bits. Every choice is made by a function that the caller gives, so a
// seeded one makes the same faults again.
//
// The model: each file has what programs see (the page cache) and what is on
// the disk. A write changes the first; Datasync brings the second up. Crash
// (loss of power) keeps of each write since then any subset of its 512-byte
// sectors, and of the directory's changes since SyncDir any prefix. Kill (kill
// -9) keeps the cache. A failing Datasync writes any subset, and calls the rest
// clean, as Linux does: a second Datasync that succeeds brings nothing of it.
package faultfs
