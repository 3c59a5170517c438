// Package bus carries: commands and queries to the engine, events from it, steps
// to driver hosts and their results back. It decides nothing.
//
// Bodies are JSON that this package does not look into; subjects and envelopes
// are all it knows. The carrier is NATS, embedded in the engine's program
// (package bus/server) and reached over a unix socket; Client is the other end.
//
//	gantry ──unix socket──▶ bus/server (who is it? SO_PEERCRED) ──▶ engine
//	          Command, Query ─▶                              ─▶ Handlers
//	          Events, Progress ◀─                            ◀─ Publish
//
// A message may get lost (core NATS delivers at most once), so nothing rests
// on one. Command repeats itself under its job id until there is a receipt,
// Finish until the engine has it, and Events finds gaps by sequence and reads
// them from the stream of the past.
package bus
