// Package stdio holds the two formats in which a container's bytes leave its
// shim: the frames of the attach socket and the records of the log file. The
// shim writes both in C (plugins/exec-native/shim); everybody else uses this
// package.
//
// # Frames
//
// The attach socket is a stream socket. Both sides send frames: one byte type,
// 24 bits length (big-endian, at most 65,536), payload. Numbers in payloads are
// big-endian. A client sends hello first, within 10 s; types that a side does
// not know are passed over.
//
//	client  1  hello      u8 version (1), u8 zero, u16 flags: 1 stdout, 2 stderr,
//	                      4 stdin, 8 stdin ends with me, 16 lossless, 32 control
//	        2  stdin      bytes
//	        3  stdin-eof  nothing: the program's input ends
//	        4  resize     u16 rows, u16 columns
//	        5  detach     nothing: the shim closes; input does not end
//	shim   16  stdout     bytes
//	       17  stderr     bytes
//	       18  lost       u32 stream, u32 zero, u64 from, u64 to: this stream's
//	                      bytes at log offsets from ≤ n < to were not sent
//	       19  exit       i32 code, i32 signal, u32 flags (1 OOM, 2 start failed,
//	                      4 killed at its deadline, 8 guessed), u32 zero, u64 time ns, u16 stage, u16 op,
//	                      u32 index, i32 errno, u32 zero: always the last frame
//	       20  state      u16 version, u16 state (1 made, 2 running, 3 exited,
//	                      4 failed), i32 pid, i32 pid of the shim, u32 zero,
//	                      u64 log offset: the answer to hello, and at each change
//	engine 21  end        nothing: behind the last byte of a log that the engine
//	                      shows as stdout, stderr and lost
//
// A lossless client holds the program up as a pipe would: what it has not
// taken is kept, and that stream alone is not read further. Any other client
// follows: what its socket cannot take is left out and told by lost; the log
// has it (LogReader.Seek). A client that attached before the program started
// gets every byte; exit comes after the last one. A client that closes only its
// sending side goes on receiving. Control clients get state and exit only, and
// do not count as attached. Of the 16 clients that a shim serves at once 15 may be
// others: a connection above that is closed.
//
// # The log
//
// A log is the file NAME and, older, NAME.1, NAME.2 … in one directory. Each is
// a row of records, little-endian:
//
//	u32 magic "GLR1", u32 length of the payload (at most 65,536),
//	u64 wall time in ns, u64 running offset, u8 stream, 3 zeros,
//	u32 CRC-32 (IEEE) of the 28 bytes before; payload
//
// Stream 1 is standard output, 2 standard error; the payload is what one read
// gave, lines are split by whoever reads. The running offset counts the
// payload bytes of both streams since the log began, over files and runs, also
// those that were lost. Stream 3 is a gap: 8 bytes, how many payload bytes
// could not be written (no space, I/O error), from its offset on.
//
// A record is written with one write; a torn last record (the machine or the
// shim died) is passed over by readers and cut by RepairLog before the next
// run. Rotation makes a new file (NAME.new), renames NAME to NAME.1 and so on
// upwards, the last one going, then NAME.new to NAME; it comes when a file would
// become too large, or at the first record after it has become too old. Readers hold
// descriptors and go on with the record whose offset follows: none is lost or
// doubled. What rotation has already taken away is told as a gap.
//
// With non-blocking delivery (plan.LogPolicy) a process beside the shim writes the
// log, and what the memory between the two cannot take is a gap as well.
//
// What is trusted: the checksum covers the header only. A power cut may leave
// wrong bytes inside a payload; it cannot shift the records behind it.
package stdio
