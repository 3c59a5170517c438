// Package eventlog keeps the ordered, durable record of everything that has
// happened: an append-only journal in a directory of its own. It knows nothing
// of what the events mean; a payload is lines of JSON, and the log keeps their
// bytes exactly.
//
// Open gives the journal of a directory, NewMem one in memory, OpenFS one on
// any filesystem (package faultfs has one that tears, loses and fails). All
// keep the contract that package logtest checks. Verify, Repair and Export work
// on a directory without an engine.
//
// # Words
//
// An event has a sequence; sequences begin at 1 and have no gaps. A record is
// one frame: all events of one decision, whole or not there at all. A batch is
// all records of one Append: one write, one fdatasync. The batch number is the
// first sequence of that write. A segment is one file.
//
// # Directory
//
//	format                      "gantry log 1\n": format version of the directory
//	lock                        flock'ed by the one process that may write
//	segment-00000000000000000001.log  the number is the first sequence in it
//	snapshot-00000000000000010000     a cache: state after that sequence
//	torn-SEQ-N, damaged-SEQ-N   bytes that recovery or repair took out; never read again
//	*.new                       not finished; removed at the next open
//
// A directory of a newer format is refused before anything else is read.
//
// # Record
//
// Numbers are little endian. The CRC is CRC-32C (Castagnoli) of the whole
// record without its own four bytes. The hash of a record is SHA-256 of all its
// bytes.
//
//	 0   4  magic FF 47 52 31 ("\xffGR1"; FF occurs in no UTF-8 text, so in no payload)
//	 4   4  length of the whole record in bytes, 77 to 64 MiB
//	 8   4  CRC-32C of bytes 0–7 and 12–length
//	12   4  count: events in the record, at least 1
//	16   8  batch: first sequence of the write that brought the record
//	24   8  first: sequence of the first event, at least batch
//	32   8  time: nanoseconds since 1970 UTC, signed
//	40   2  schema of the events
//	42   2  flags; their meaning is the writer's
//	44  32  hash of the record before; zeros for the first of all
//	76   …  payload: count lines of valid UTF-8, none empty, each ended by \n
//
// Every byte follows from the parts, so EncodeRecord gives the stored bytes
// again from what a replica keeps (first, count, batch, time, schema, flags,
// previous hash and the lines). Records follow each other without padding.
//
// # Segment
//
// A header, records, and, once closed, a footer. The file of the last segment
// is longer than what is in it: it ends in allocated zeros (see "Full disk").
// Zeros after the last record are the log's clean end.
//
// Header, 96 bytes:
//
//	 0   8  magic FF "GSEGM" 00 01
//	 8   4  CRC-32C of bytes 0–7 and 12–96
//	12   4  format version, 1
//	16   8  first sequence of the segment
//	24  32  hash of the record before; zeros in the first segment
//	56  32  root of the segment before; zeros in the first segment
//	88   8  zeros
//
// Footer, 136 bytes:
//
//	 0   8  magic FF "GFOOT" 00 01
//	 8   4  CRC-32C of bytes 0–7 and 12–136
//	12   4  zeros
//	16   8  count of records
//	24   8  first sequence
//	32   8  last sequence
//	40  32  Merkle root of the segment's records
//	72  32  root of the segment before
//	104 32  hash of the last record
//
// The Merkle tree is that of RFC 6962: leaf = SHA-256(00 ‖ record hash), node =
// SHA-256(01 ‖ left ‖ right), the left subtree being the largest full one. A
// footer therefore binds all records of its segment and, through the root of
// the one before, all earlier segments.
//
// A segment is closed when it is longer than the limit (64 MiB by default)
// before the next batch; a batch is never split. In this order: the next file
// is made under a .new name and its space allocated; the footer is written and
// fdatasynced; the header is written and fdatasynced; the file gets its name
// and the directory is fsynced; the closed one is cut to its length. If there
// is no space for a next file, the log stays with the old one.
//
// # Snapshot
//
// A cache, thrown away if anything does not match: own hash, schema, a sequence
// that is a record's end and not beyond the log's, hash of the record that ends
// there. Written under a .new name, fdatasynced, renamed, directory fsynced.
// The newest two are kept.
//
//	 0   8  magic FF "GSNAP" 00 01
//	 8   4  schema of the state
//	12   4  zeros
//	16   8  sequence
//	24  32  hash of the record that ends with that sequence
//	56   8  length of the state
//	64   …  state, opaque
//	 …  32  SHA-256 of everything before
//
// # What is trusted of the disk
//
//   - After fdatasync has returned nil, the file's data, and the size needed to
//     reach it, survive a loss of power; after fsync of the directory, its
//     names.
//   - After fdatasync has returned an error, nothing is known about any page of
//     the file: Linux reports a write-back error once and then calls the pages
//     clean. It is never retried; the log takes no further append, the engine
//     stops.
//   - Rename within a directory is atomic.
//   - A sector that is being written again with the same bytes when power goes
//     reads as those bytes: the last block of the log is rewritten with each
//     append.
//   - Without fdatasync nothing is trusted: a write may be there whole, in
//     part, in any order of its sectors, or not at all.
//   - Bits may rot anywhere at any time. That is found (CRC, chain, Merkle
//     root), named and refused; never skipped in silence.
//   - Nobody else writes the files. The chain shows accidents and edits of old
//     records; who can rewrite the whole directory can forge it. The replica
//     and roots noted elsewhere are what to compare with.
//
// # Crashes, case by case
//
// Batch B is written only after the fdatasync of the batch before it has
// returned. So if a valid record of batch B is found, every record of every
// earlier batch was durable once. Let E be the sequence that should follow the
// last good record. What is damaged at E belongs to batch E or an earlier one:
//
//   - Zeros to the end of the file: the clean end.
//   - Damage, and behind it no valid record whose batch is > E, no valid
//     footer, no further segment: a torn tail. Nobody was told that it is
//     written. It is cut from the first damaged record on: copied to torn-E-N
//     (as far as there is space), overwritten with zeros, fdatasynced, and
//     reported in Recovery.
//   - Damage, and behind it such a record, footer or segment: corruption.
//     Something that was acknowledged is gone. Open refuses with CorruptError
//     (class data loss), which names segment, offset and sequence. Verify lists
//     all of it, Repair takes the missing records from a replica.
//   - A record with a good CRC that does not fit the chain or the sequence:
//     corruption; tearing cannot make one.
//   - Killed (kill -9) after the write and before the fdatasync: the last batch
//     is in the page cache only and reads as if it were there. Open therefore
//     writes the last batch again and fdatasyncs it before anybody folds it.
//   - Power lost or killed in the middle of a batch of several frames: whole
//     records before the first damaged one stay (each is a whole decision); the
//     rest is cut.
//   - Killed while closing a segment: a footer with no segment behind it is
//     taken off again and the segment goes on; a *.new file is removed; a
//     closed segment that still has its zeros is cut.
//   - Killed while recovery cuts a tail: the zeros are there in part; what is
//     left is a torn tail again.
//   - Killed during the creation of the directory: "format" is made first; a
//     directory with it and no segment is a new log.
//   - Killed during a snapshot: a *.new file, removed.
//   - A record written by a batch that was then refused is overwritten with
//     zeros and fdatasynced before the refusal is returned: what was refused
//     cannot come back.
//   - Killed during a restore from the replica: each batch of it has its own
//     fdatasync, so the rules above hold.
//   - Killed during Repair: it makes the new segment under a .new name; the
//     damaged one is in its place until the rename.
//
// What this cannot see: damage to the very last batch looks like a torn tail,
// also if it was acknowledged and rotted later; and a last segment whose file
// has been deleted was perhaps never there. The replica has the records: those
// ahead of the journal whose chain fits are taken back with Log.Restore.
//
// # Repair
//
// A damaged segment is made anew as a whole: readable records from the file,
// missing ones from the replica (all of them from there if the readable ones do
// not fit each other), then header and footer. It is put in place only if the
// chain holds from the root of the segment before to the header of the one
// behind (or, where that is damaged too, to the segment's own footer). As every
// byte follows from the records, the result is the file as it was.
//
// # Full disk
//
// The last segment's file is allocated ahead by a chunk (1 MiB) and the reserve
// (16 MiB). fallocate is used where there is one: measured on ext4, an append
// into allocated space takes 0.7 to 0.8 of one that grows the file, for the
// fdatasync has no new size to journal; written zeros are no quicker (0.9) and
// cost a write of 16 MiB at the first start. That ext4 and tmpfs keep the
// promise to the last byte is a test on real ones. Where there is no fallocate,
// zeros are written. A copy-on-write filesystem promises neither: there a write
// may fail nevertheless, and is taken back. The space belongs to the file:
// unlike a reserve file that is deleted in need, nobody else can take it in
// between.
//
// An ordinary batch that would reach into the reserve asks for more space
// first; if there is none it is refused with the class resource exhausted, and
// nothing has been written. A batch whose frames are all Essential (results,
// exits, stop, remove, prune) may use the reserve. Once there is space the next
// ordinary batch fills the reserve up again. If a write fails for want of space
// nevertheless, its bytes are zeroed, fdatasynced, and the batch is refused.
// Any other failing write is treated as a failing fdatasync.
//
// # Trimming (fixed now, not used yet)
//
// By default nothing is deleted. Trimming will be an event that the core
// decides, stored like any other:
//
//	{"event":"log.trimmed", …, "through":SEQ, "base_hash":HEX, "chain_hash":HEX}
//
// through is the last sequence that may go, and the end of a segment; base_hash
// is the SHA-256 of the base's bytes; chain_hash is the hash of the record that
// ends with through. The base is the file base-SEQ (SEQ = through), in the
// format of a snapshot with magic FF "GBASE" 00 01, whose state is JSON under
// the rule that the log is for ever: fields are only added, a meaning never
// changes. A base is no cache: it is fdatasynced before the event is appended,
// and segments up to through are deleted only after the event is durable. A log
// whose first segment does not begin at 1 is valid only with a base that ends
// where it begins and whose chain hash is in the header.
//
// # Recorded samples
//
// testdata holds one recorded sample of each event of each release, to be
// decoded and folded by the tests of later ones; see testdata/README.md.
package eventlog
