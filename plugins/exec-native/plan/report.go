package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"syscall"
	"time"
)

// ReportKind says what a report tells.
type ReportKind uint16

// The kinds of reports.
const (
	ReportShim    ReportKind = 1 // the monitor is up and in its cgroup; PID is its own
	ReportInit    ReportKind = 2 // the init exists; PID as the host sees it
	ReportSync    ReportKind = 3 // the init waits at Point until Continue
	ReportGate    ReportKind = 4 // the init waits for a client to attach
	ReportRunning ReportKind = 5 // the program was executed; PID
	ReportWarning ReportKind = 6 // an optional operation failed
	ReportError   ReportKind = 7 // the start failed; nothing of it is left but cgroups and files
	ReportExited  ReportKind = 8 // the program ended; the record is written
	// ReportListener: a seccomp listener is about to be installed; the init waits
	// for Continue. Report.Listener fetches it.
	ReportListener ReportKind = 9

	reportFinal ReportKind = 100 // the init's: from here on the end means executed
	// ReportConsole brings a pty's master as Report.File, without a monitor.
	ReportConsole ReportKind = 101
)

// Flags of a report and of a record.
const (
	FlagOOM     uint16 = 1 << iota // the cgroup's oom_kill counter rose
	FlagFailed                     // the start failed: Stage, Index, Op and Errno tell where
	FlagTimeout                    // the program was killed at its Deadline
)

// Report is one message of the monitor.
type Report struct {
	Kind   ReportKind
	Stage  Stage
	Op     Kind          // operation that failed, 0 if none did
	Index  int           // its place in Plan.Steps
	Errno  syscall.Errno // of the operation
	PID    int           // Shim, Init, Running
	Point  uint32        // Sync
	Code   int           // Exited: exit status, 128+n when ended by signal n; Listener: its descriptor in the init
	Signal int           // Exited: the signal, or 0; Error of a Hook: its wait status
	Flags  uint16
	LogEnd uint64    // Exited: as in ExitRecord
	Time   time.Time // of the monitor's wall clock
	File   *os.File  // Console: the master; Running, of a Quiet monitor: the pidfd. The receiver's to close
}

const (
	reportMagic = 0x54505247 // "GRPT"
	recordMagic = 0x43455247 // "GREC"
	reportBytes = 40
)

// RecordSize is the length of the exit record in bytes.
const RecordSize = 88

var errShort = errors.New("wrong length")

// decodeReport reads a report:
//
//	u32 magic "GRPT", u16 kind, u16 stage, u32 index, u16 op, u16 flags,
//	i32 errno, i32 pid or point, i32 code, i32 signal, u64 time in ns
//
// Of an exit, index and errno are the halves of LogEnd, the low one first.
func decodeReport(b []byte) (Report, error) {
	if len(b) != reportBytes {
		return Report{}, fmt.Errorf("report of %d bytes: %w", len(b), errShort)
	}
	le := binary.LittleEndian
	if m := le.Uint32(b); m != reportMagic {
		return Report{}, fmt.Errorf("report with magic %#x", m)
	}
	r := Report{
		Kind:   ReportKind(le.Uint16(b[4:])),
		Stage:  Stage(le.Uint16(b[6:])),
		Index:  int(le.Uint32(b[8:])),
		Op:     Kind(le.Uint16(b[12:])),
		Flags:  le.Uint16(b[14:]),
		Errno:  syscall.Errno(le.Uint32(b[16:])),
		Code:   int(int32(le.Uint32(b[24:]))),
		Signal: int(int32(le.Uint32(b[28:]))),
		Time:   time.Unix(0, int64(le.Uint64(b[32:]))),
	}
	if r.Kind == ReportExited {
		r.LogEnd, r.Index, r.Errno = halves(b[8:], b[16:]), 0, 0
	}
	if r.Kind == ReportSync || r.Kind == ReportListener {
		r.Point = le.Uint32(b[20:])
	} else {
		r.PID = int(int32(le.Uint32(b[20:])))
	}
	return r, nil
}

// Err is the failure that an Error or Warning tells, for errors.Is with a
// syscall.Errno; nil for other kinds.
func (r Report) Err() error {
	if r.Kind != ReportError && r.Kind != ReportWarning {
		return nil
	}
	if r.Op == 0 {
		return fmt.Errorf("%v: %w", r.Stage, r.Errno)
	}
	if r.Op == KindHook && r.Errno == syscall.ECHILD {
		return fmt.Errorf("hook (operation %d, %v) ended with %v: %w", r.Index, r.Stage, waitText(r.Signal), r.Errno)
	}
	return fmt.Errorf("%v (operation %d, %v): %w", r.Op, r.Index, r.Stage, r.Errno)
}

// waitText tells a wait status.
func waitText(status int) string {
	w := syscall.WaitStatus(status)
	if w.Signaled() {
		return "signal " + w.Signal().String()
	}
	return fmt.Sprintf("code %d", w.ExitStatus())
}

// RecordState says how far a run has come.
type RecordState uint16

// The states of a run in its record. A record of zeros is StateNone.
const (
	StateNone    RecordState = 0 // nothing is known: the shim has not come so far
	StateMade    RecordState = 1 // the init exists, its program is not yet executed
	StateRunning RecordState = 2
	StateExited  RecordState = 3
	StateFailed  RecordState = 4 // the start failed
)

// ExitRecord is what the shim keeps about its run in the run directory, for
// whoever was not there. It is written whole, with one write, at each change.
type ExitRecord struct {
	State   RecordState
	Run     uint64
	BootID  [16]byte // void after a restart of the machine
	ShimPID int
	PID     int
	Code    int
	Signal  int
	Flags   uint16
	Started time.Time
	Ended   time.Time
	Stage   Stage // of a failed start, as Index, Op and Errno
	Op      Kind
	Index   int
	Errno   syscall.Errno
	LogEnd  uint64 // offset of the output's end where the log does not reach it; 0 where it does
}

// ParseRecord reads a record:
//
//	u32 magic "GREC", u16 version 1, u16 state, u64 run, 16 bytes boot id,
//	i32 shim pid, i32 pid, i32 code, i32 signal, u64 started ns, u64 ended ns,
//	u16 stage, u16 op, u32 index, i32 errno, u32 flags, 4 zeros, u32 CRC-32
//	(IEEE) of the 84 bytes before
//
// Of an exited run, index and errno are the halves of LogEnd, the low one first.
// A file of zeros is a record of StateNone.
func ParseRecord(b []byte) (ExitRecord, error) {
	if len(b) != RecordSize {
		return ExitRecord{}, fmt.Errorf("exit record of %d bytes: %w", len(b), errShort)
	}
	if [RecordSize]byte(b) == [RecordSize]byte{} {
		return ExitRecord{}, nil
	}
	le := binary.LittleEndian
	if le.Uint32(b) != recordMagic || le.Uint16(b[4:]) != 1 {
		return ExitRecord{}, fmt.Errorf("exit record with magic %#x, version %d", le.Uint32(b), le.Uint16(b[4:]))
	}
	if sum := crc32.ChecksumIEEE(b[:84]); sum != le.Uint32(b[84:]) {
		return ExitRecord{}, fmt.Errorf("exit record with checksum %#x, not %#x", le.Uint32(b[84:]), sum)
	}
	r := ExitRecord{
		State:   RecordState(le.Uint16(b[6:])),
		Run:     le.Uint64(b[8:]),
		BootID:  [16]byte(b[16:32]),
		ShimPID: int(int32(le.Uint32(b[32:]))),
		PID:     int(int32(le.Uint32(b[36:]))),
		Code:    int(int32(le.Uint32(b[40:]))),
		Signal:  int(int32(le.Uint32(b[44:]))),
		Started: wallTime(le.Uint64(b[48:])),
		Ended:   wallTime(le.Uint64(b[56:])),
		Stage:   Stage(le.Uint16(b[64:])),
		Op:      Kind(le.Uint16(b[66:])),
		Index:   int(le.Uint32(b[68:])),
		Errno:   syscall.Errno(le.Uint32(b[72:])),
		Flags:   uint16(le.Uint32(b[76:])),
	}
	if r.State == StateExited {
		r.LogEnd, r.Index, r.Errno = halves(b[68:], b[72:]), 0, 0
	}
	return r, nil
}

// halves puts a number together of its low and its high half.
func halves(low, high []byte) uint64 {
	le := binary.LittleEndian
	return uint64(le.Uint32(high))<<32 | uint64(le.Uint32(low))
}

// wallTime keeps zero for "not yet".
func wallTime(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns))
}
