package plan

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Version of the plan's format.
const Version = 1

// Limits of a plan. The shim holds the same numbers (shim/plan.h; a test
// compares them) and refuses what is above them.
const (
	MaxPlan   = 4 << 20   // bytes of an encoded plan
	MaxSteps  = 2048      // operations
	MaxFiles  = 512       // descriptors
	MaxString = 128 << 10 // bytes of one string, the kernel's MAX_ARG_STRLEN
	MaxPath   = 4095      // bytes of a path
	MaxArgs   = 16 << 10  // arguments, and as many variables
	MaxTries  = 64        // candidate paths of Exec
	MaxParams = 64        // parameters of a file system
	MaxAttrs  = 4         // changes of a bind mount's attributes
	MaxGroups = 1024      // supplementary groups
	MaxFilter = 32 << 10  // bytes of a seccomp filter: 4,096 instructions
	MaxData   = 64 << 10  // bytes of the state that a hook is told
	MaxName   = 64        // bytes of host name and domain name
	MaxKeep   = 256       // descriptors that the program inherits beside its streams
	MaxMask   = 1 << 10   // bytes of a set of processors or memory nodes
	MaxRing   = 255       // bytes of a keyring's name
)

const (
	planMagic   = 0x4e4c5047 // "GPLN"
	headerBytes = 24
	stepBytes   = 8
)

// FD is a descriptor that travels with the plan: its index among the files
// given to Start.
type FD uint32

// NoFD says that a field names no descriptor.
const NoFD FD = math.MaxUint32

// Stage says when and in which process an operation runs.
type Stage uint8

// The stages, in their order. See the package's comment.
const (
	StageMonitor Stage = iota
	StageJoin
	StageClone
	StageParent
	StageChild
	StageMounts
	StageCover
	StageGate
	StageIdentity
	StageExec
)

var stageNames = [...]string{
	"monitor", "join", "clone", "parent", "child", "mounts", "cover", "gate", "identity", "exec",
}

// String names the stage.
func (s Stage) String() string {
	if int(s) < len(stageNames) {
		return stageNames[s]
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Op is one operation. Only this package makes new ones.
type Op interface {
	// Kind is the operation's number in the format.
	Kind() Kind
	put(*writer)
}

// Step is an operation at its place. A failing Optional one is reported as a
// Warning and passed over; any other ends the start.
type Step struct {
	Stage    Stage
	Optional bool
	Op       Op
}

// Plan is the list of steps, in the order in which they run.
type Plan struct {
	Steps []Step
}

// Add appends operations of one stage.
func (p *Plan) Add(s Stage, ops ...Op) {
	for _, op := range ops {
		p.Steps = append(p.Steps, Step{Stage: s, Op: op})
	}
}

// AddOptional appends operations whose failure is passed over.
func (p *Plan) AddOptional(s Stage, ops ...Op) {
	for _, op := range ops {
		p.Steps = append(p.Steps, Step{Stage: s, Optional: true, Op: op})
	}
}

// Encode gives the bytes for the shim; files is how many descriptors go with
// them. It checks the bounds, the order of the stages and every FD; what is in
// a wrong stage or missing is refused by the shim.
//
//	header  u32 magic "GPLN", u16 version, u16 length of the header (24),
//	        u32 whole length, u32 steps, u32 files, u32 zero
//	step    u16 kind, u8 stage, u8 flags (1: optional), u32 length of the
//	        payload; payload; zeros up to a multiple of 8
//
// A payload is the operation's fields in their order: integers, lists as u32
// count and elements, strings and bytes as u32 length and bytes; a string is
// followed by a NUL that is not counted, and holds none.
func (p *Plan) Encode(files int) ([]byte, error) {
	if len(p.Steps) > MaxSteps {
		return nil, fmt.Errorf("plan of %d operations: at most %d", len(p.Steps), MaxSteps)
	}
	if files > MaxFiles {
		return nil, fmt.Errorf("plan with %d descriptors: at most %d", files, MaxFiles)
	}
	w := &writer{files: files}
	w.b = binary.LittleEndian.AppendUint32(make([]byte, 0, 16<<10), planMagic)
	w.u16(Version)
	w.u16(headerBytes)
	w.u32(0)
	w.u32(uint32(len(p.Steps)))
	w.u32(uint32(files))
	w.u32(0)
	last := StageMonitor
	for i, s := range p.Steps {
		if s.Stage < last || s.Stage > StageExec {
			return nil, fmt.Errorf("operation %d, %v: stage %v after %v", i, s.Op.Kind(), s.Stage, last)
		}
		last = s.Stage
		w.step(s)
		if w.err != nil {
			return nil, fmt.Errorf("operation %d, %v: %w", i, s.Op.Kind(), w.err)
		}
	}
	if len(w.b) > MaxPlan {
		return nil, fmt.Errorf("plan of %d bytes: at most %d", len(w.b), MaxPlan)
	}
	binary.LittleEndian.PutUint32(w.b[8:], uint32(len(w.b)))
	return w.b, nil
}

// writer encodes; the first thing that cannot be stays in err.
type writer struct {
	b     []byte
	files int
	err   error
}

func (w *writer) step(s Step) {
	var flags byte
	if s.Optional {
		flags = 1
	}
	w.u16(uint16(s.Op.Kind()))
	w.b = append(w.b, byte(s.Stage), flags)
	at := len(w.b)
	w.u32(0)
	s.Op.put(w)
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at-4))
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *writer) u16(v uint16) { w.b = binary.LittleEndian.AppendUint16(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }

func (w *writer) flag(v bool) {
	if v {
		w.u32(1)
		return
	}
	w.u32(0)
}

func (w *writer) fd(v FD) {
	if v != NoFD && int64(v) >= int64(w.files) {
		w.fail("descriptor %d of %d", v, w.files)
	}
	w.u32(uint32(v))
}

func (w *writer) bytes(v []byte, limit int) {
	if len(v) > limit {
		w.fail("%d bytes: at most %d", len(v), limit)
		return
	}
	w.u32(uint32(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) str(v string, limit int) {
	if len(v) > limit {
		w.fail("%d bytes (%.32q…): at most %d", len(v), v, limit)
		return
	}
	for i := range len(v) {
		if v[i] == 0 {
			w.fail("a NUL in %.64q", v)
			return
		}
	}
	w.u32(uint32(len(v)))
	w.b = append(w.b, v...)
	w.b = append(w.b, 0)
}

func (w *writer) list(v []string, limit int) {
	if len(v) > limit {
		w.fail("%d strings: at most %d", len(v), limit)
		return
	}
	w.u32(uint32(len(v)))
	for _, s := range v {
		w.str(s, MaxString)
	}
}
