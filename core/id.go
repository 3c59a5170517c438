package core

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Ids are types, so that two strings cannot change places. They are made by
// whoever sends the command that creates the thing.
type (
	// ContainerID is 64 hexadecimal digits.
	ContainerID string
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

func stepID(n Noun, slot, verb string, seq uint64) StepID {
	return StepID(n.Kind + "/" + n.ID + "/" + slot + "/" + verb + "@" + strconv.FormatUint(seq, 10))
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

var (
	hexID    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	uuidV7   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)
)

func checkHexID(what, id string) error {
	if !hexID.MatchString(id) {
		return refuse(errdefs.ErrInvalidArgument, "%s id %q is not 64 hexadecimal digits", what, id)
	}
	return nil
}

func checkName(what, name string) error {
	if !nameRule.MatchString(name) {
		return refuse(errdefs.ErrInvalidArgument,
			"invalid %s name %q: use 2 to 128 of [a-zA-Z0-9_.-], the first a letter or digit", what, name)
	}
	return nil
}

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// panicf stops the program on a broken invariant, with the numbers.
func panicf(format string, args ...any) { panic("core: " + sprintf(format, args...)) }
