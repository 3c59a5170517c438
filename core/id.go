package core

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Ids are types, so that two strings cannot change places. They are made by
// whoever sends the command that creates the thing.
type (
	// ContainerID is 64 hexadecimal digits.
	ContainerID string
	// ExecID is 64 hexadecimal digits.
	ExecID string
	// ImageID is the digest of an image's configuration, "sha256:…".
	ImageID string
	// LayerID is the chain id of a layer, "sha256:…".
	LayerID string
	// NetworkID is 64 hexadecimal digits.
	NetworkID string
	// JobID is a UUIDv7 in lower case: its order is the order of its making.
	JobID string
	// StepID is noun kind/noun id/slot/verb@sequence.
	StepID string
)

// The kinds of nouns.
const (
	KindContainer = "container"
	KindImage     = "image"
	KindLayer     = "layer"
	KindNetwork   = "network"
	KindJob       = "job"
	KindDriver    = "driver"
	KindEngine    = "engine"
)

// Noun names one thing that events are about.
type Noun struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// String is kind and id with a slash between.
func (n Noun) String() string { return n.Kind + "/" + n.ID }

func stepID(n Noun, slot, verb string, seq uint64) StepID { return stepIDLike("", n, slot, verb, seq) }

// stepIDLike is stepID; if that is known already, no second string is made of it.
func stepIDLike(known StepID, n Noun, slot, verb string, seq uint64) StepID {
	var room [160]byte // one of a container has about 110
	id := append(append(room[:0], n.Kind...), '/')
	id = append(append(id, n.ID...), '/')
	id = append(append(id, slot...), '/')
	id = append(append(id, verb...), '@')
	id = strconv.AppendUint(id, seq, 10)
	if string(id) == string(known) {
		return known
	}
	return StepID(id)
}

// Noun is the noun that owes the step. Ids hold no slash, except those of
// drivers ("net/bridge"), which are put together again.
func (id StepID) Noun() Noun {
	kind, rest, _ := strings.Cut(string(id), "/")
	noun, rest, _ := strings.Cut(rest, "/")
	slot, rest, whole := strings.Cut(rest, "/")
	if !whole {
		return Noun{}
	}
	if kind == KindDriver && strings.Contains(rest, "/") {
		return Noun{kind, noun + "/" + slot}
	}
	return Noun{kind, noun}
}

// Slot is the step's id without verb and sequence: steps of one slot run one
// at a time.
func (id StepID) Slot() string {
	if i := strings.LastIndexByte(string(id), '/'); i >= 0 {
		return string(id[:i])
	}
	return string(id)
}

// Verb is what the step does, e.g. "prepare".
func (id StepID) Verb() string {
	v := string(id[strings.LastIndexByte(string(id), '/')+1:])
	verb, _, _ := strings.Cut(v, "@")
	return verb
}

func (id StepID) slotName() string {
	slot := id.Slot()
	return slot[strings.LastIndexByte(slot, '/')+1:]
}

// Turn is the sequence of the event that made the step owed.
func (id StepID) Turn() uint64 {
	_, seq, _ := strings.Cut(string(id), "@")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// The rules are written out: as patterns they would cost every start of the
// command line half a millisecond.

func isHexID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// isUUIDv7 reports whether id is a UUID of version 7 in lower case (RFC 9562).
func isUUIDv7(id string) bool {
	if len(id) != 36 || id[14] != '7' || !strings.Contains("89ab", id[19:20]) {
		return false
	}
	for i, c := range []byte(id) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		digit := '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		if dash && c != '-' || !dash && !digit {
			return false
		}
	}
	return true
}

// isName is Docker's rule for names: [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func isName(name string) bool {
	if len(name) < 2 || len(name) > 128 {
		return false
	}
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

func checkHexID(what, id string) error {
	if !isHexID(id) {
		return refuse(errdefs.ErrInvalidArgument, "%s id %q is not 64 hexadecimal digits", what, id)
	}
	return nil
}

func checkName(what, name string) error {
	if !isName(name) {
		return refuse(errdefs.ErrInvalidArgument,
			"invalid %s name %q: use 2 to 128 of [a-zA-Z0-9_.-], the first a letter or digit", what, name)
	}
	return nil
}

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// panicf stops the program on a broken invariant, with the numbers.
func panicf(format string, args ...any) { panic("core: " + sprintf(format, args...)) }
