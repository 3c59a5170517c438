package core

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"sort"
)

// SchemaVersion numbers the state's form. A snapshot of another number is
// thrown away and the log folded from its beginning; a test fails if the
// golden log's state changes while this number does not.
const SchemaVersion = 3

// State is the fold of the log. It is changed by Apply alone; whoever reads it
// while another goroutine applies must hold the engine's lock.
type State struct {
	Seq        uint64                     `json:"seq"` // of the last event applied
	Engine     Engine                     `json:"engine"`
	Containers map[ContainerID]*Container `json:"containers"`
	Images     map[ImageID]*Image         `json:"images"`
	Layers     map[LayerID]*Layer         `json:"layers"`
	Networks   map[NetworkID]*Network     `json:"networks"`
	Drivers    map[string]*Driver         `json:"drivers"` // by "kind/name"
	Jobs       map[JobID]*Job             `json:"jobs"`
	Ended      []JobID                    `json:"ended"`               // finished jobs, oldest first
	Forgotten  JobID                      `json:"forgotten,omitempty"` // the youngest id that was forgotten
	Strays     map[string]Item            `json:"strays,omitempty"`    // quarantined, by kind/key/run

	names map[string]ContainerID // index: container by name
	refs  map[string]ImageID     // index: image by full reference
	nets  map[string]NetworkID   // index: network by name

	disabled int // how many drivers are

	sharers map[ContainerID][]ContainerID // index: who shares namespaces of a container, sorted

	touched []Noun // room for what one Apply returns; see touch
}

// NewState is the state before the first event.
func NewState() *State {
	s := &State{}
	s.reindex()
	return s
}

// reindex makes the maps that a decoded state lacks, and the indexes.
func (s *State) reindex() {
	s.Containers = made(s.Containers)
	s.Images = made(s.Images)
	s.Layers = made(s.Layers)
	s.Networks = made(s.Networks)
	s.Drivers = made(s.Drivers)
	s.Jobs = made(s.Jobs)
	s.Strays = made(s.Strays)
	s.names = make(map[string]ContainerID, len(s.Containers))
	s.refs = make(map[string]ImageID, len(s.Images))
	s.nets = make(map[string]NetworkID, len(s.Networks))
	s.sharers = make(map[ContainerID][]ContainerID)
	for id, n := range s.Networks {
		if n.Want != Removed {
			s.nets[n.Name] = id
		}
		n.used = make(map[netip.Addr]ContainerID)
	}
	for id, c := range s.Containers {
		if c.Want != Removed {
			s.names[c.Name] = id
		}
		for _, a := range c.Nets {
			s.holdAddress(a, id)
		}
		s.noteSharer(c)
	}
	s.disabled = 0
	for _, d := range s.Drivers {
		if d.Disabled {
			s.disabled++
		}
	}
	for id, i := range s.Images {
		for _, ref := range i.Names {
			s.refs[ref] = id
		}
	}
}

func made[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return m
}

// MarshalBinary is the state as canonical JSON: equal states, equal bytes.
func (s *State) MarshalBinary() ([]byte, error) { return json.Marshal(s) }

// UnmarshalState reads what MarshalBinary wrote.
func UnmarshalState(data []byte) (*State, error) {
	s := &State{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	s.reindex()
	return s, nil
}

// Hash identifies the state: SHA-256 of its canonical form, in hexadecimal.
func (s *State) Hash() string {
	data, err := s.MarshalBinary()
	if err != nil {
		panicf("state at %d cannot be encoded: %v", s.Seq, err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Nouns lists every noun, in a stable order.
func (s *State) Nouns() []Noun {
	var all []Noun
	for id := range s.Containers {
		all = append(all, id.noun())
	}
	for id := range s.Images {
		all = append(all, id.noun())
	}
	for id := range s.Layers {
		all = append(all, id.noun())
	}
	for id := range s.Networks {
		all = append(all, id.noun())
	}
	for id := range s.Drivers {
		all = append(all, Noun{KindDriver, id})
	}
	for id, j := range s.Jobs {
		if j.owing() {
			all = append(all, Noun{KindJob, string(id)})
		}
	}
	sort.Slice(all, func(i, k int) bool {
		if all[i].Kind != all[k].Kind {
			return all[i].Kind < all[k].Kind
		}
		return all[i].ID < all[k].ID
	})
	return all
}

// Owed is Next over all nouns.
func (s *State) Owed() []Step {
	var all []Step
	for _, n := range s.Nouns() {
		all = append(all, Next(s, n)...)
	}
	return all
}
