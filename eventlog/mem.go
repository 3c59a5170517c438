package eventlog

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/containerd/errdefs"
)

// Mem is a Log in memory: durable as long as the process, and never full.
type Mem struct {
	// mu guards all below.
	mu        sync.RWMutex
	records   []Record
	head      Head
	snapshots []Snapshot
	closed    bool
}

// NewMem gives an empty log in memory.
func NewMem() *Mem { return &Mem{} }

// Append records the frames; see Log.
func (m *Mem) Append(frames []Frame) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed()
	}
	if len(frames) == 0 {
		return nil, nil
	}
	_, records, err := encodeFrames(nil, position{m.head.Seq + 1, m.head.Hash}, frames)
	if err != nil {
		return nil, err
	}
	m.keep(records)
	return records, nil
}

// keep takes records over; the payloads may be the caller's, so they are copied.
func (m *Mem) keep(records []Record) {
	for _, r := range records {
		r.Payload = bytes.Clone(r.Payload)
		m.records = append(m.records, r)
		m.head = Head{Seq: r.Last(), Hash: r.Hash}
	}
}

// Restore takes records back; see Log.
func (m *Mem) Restore(records []Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed()
	}
	for i := range records {
		_, fitting, err := encodeRestored(nil, position{m.head.Seq + 1, m.head.Hash}, records[i:i+1])
		if err != nil {
			return err
		}
		m.keep(fitting)
	}
	return nil
}

// Read calls f with every record from the one that holds from; see Log.
func (m *Mem) Read(from uint64, f func(Record) error) error {
	m.mu.RLock()
	records, closed := m.records, m.closed
	m.mu.RUnlock()
	if closed {
		return errClosed()
	}
	start := sort.Search(len(records), func(i int) bool { return records[i].Last() >= from })
	for _, r := range records[start:] {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// Head is the last event and the hash of its record.
func (m *Mem) Head() Head {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.head
}

// SaveSnapshot keeps s; see Log.
func (m *Mem) SaveSnapshot(s Snapshot) error {
	if err := checkChain(m, s); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.State = bytes.Clone(s.State)
	m.snapshots = append(m.snapshots, s)
	slices.SortStableFunc(m.snapshots, func(a, b Snapshot) int { return int(int64(a.Seq - b.Seq)) })
	if n := len(m.snapshots); n > keptSnapshots {
		m.snapshots = m.snapshots[n-keptSnapshots:]
	}
	return nil
}

// LoadSnapshot gives the newest snapshot of the schema; see Log.
func (m *Mem) LoadSnapshot(schema uint32) (Snapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return Snapshot{}, errClosed()
	}
	for _, s := range slices.Backward(m.snapshots) {
		if s.Schema == schema {
			s.State = bytes.Clone(s.State)
			return s, nil
		}
	}
	return Snapshot{}, fmt.Errorf("snapshot of schema %d: %w", schema, errdefs.ErrNotFound)
}

// Close ends the log; see Log.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
