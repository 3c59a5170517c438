package eventlog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	snapshotPrefix = "snapshot-"
	snapshotMagic  = "\xffGSNAP\x00\x01"
	snapshotHead   = 64
	keptSnapshots  = 2
	// maxSnapshot bounds what is read into memory for a cache.
	maxSnapshot = 4 << 30
)

func snapshotName(seq uint64) string { return fmt.Sprintf("%s%020d", snapshotPrefix, seq) }

func (s Snapshot) head() []byte {
	b, le := make([]byte, snapshotHead), binary.LittleEndian
	copy(b, snapshotMagic)
	le.PutUint32(b[8:], s.Schema)
	le.PutUint64(b[16:], s.Seq)
	copy(b[24:], s.Chain[:])
	le.PutUint64(b[56:], uint64(len(s.State)))
	return b
}

func (s Snapshot) sum(head []byte) []byte {
	h := sha256.New()
	h.Write(head)
	h.Write(s.State)
	return h.Sum(nil)
}

// decodeSnapshot reads a whole file. The state shares its memory.
func decodeSnapshot(b []byte) (Snapshot, error) {
	var s Snapshot
	le := binary.LittleEndian
	if len(b) < snapshotHead+sha256.Size || string(b[:8]) != snapshotMagic {
		return s, damaged("it is no snapshot")
	}
	if le.Uint64(b[56:]) != uint64(len(b)-snapshotHead-sha256.Size) {
		return s, damaged("it is %d bytes long", len(b))
	}
	body := len(b) - sha256.Size
	if sha256.Sum256(b[:body]) != [sha256.Size]byte(b[body:]) {
		return s, damaged("its hash is wrong")
	}
	s.Schema, s.Seq = le.Uint32(b[8:]), le.Uint64(b[16:])
	copy(s.Chain[:], b[24:])
	s.State = b[snapshotHead:body:body]
	return s, nil
}

// errStop ends a Read early.
type errStop struct{}

func (errStop) Error() string { return "stop" }

// checkChain refuses a snapshot that is not a fold of l up to the end of a record.
func checkChain(l Log, s Snapshot) error {
	head := l.Head()
	if s.Seq > head.Seq {
		return fmt.Errorf("snapshot at %d: the log ends at %d: %w", s.Seq, head.Seq, errdefs.ErrFailedPrecondition)
	}
	chain := head.Hash
	if s.Seq < head.Seq {
		border := false
		err := l.Read(s.Seq+1, func(r Record) error {
			border, chain = r.First == s.Seq+1, r.Prev
			return errStop{}
		})
		if err != nil && !errors.Is(err, errStop{}) {
			return fmt.Errorf("snapshot at %d: %w", s.Seq, err)
		}
		if !border {
			return fmt.Errorf("snapshot at %d: no record ends there: %w", s.Seq, errdefs.ErrFailedPrecondition)
		}
	}
	if chain != s.Chain {
		return fmt.Errorf("snapshot at %d: it follows hash %.12s, the log has %.12s: %w",
			s.Seq, s.Chain, chain, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// SaveSnapshot keeps s beside the log; see Log.
func (j *Journal) SaveSnapshot(s Snapshot) error {
	if err := checkChain(j, s); err != nil {
		return err
	}
	j.snapshots.Lock()
	defer j.snapshots.Unlock()
	if j.isClosed() {
		return errClosed()
	}
	name, head := snapshotName(s.Seq), s.head()
	if err := saveFile(j.fs, name, head, s.State, s.sum(head)); err != nil {
		return fmt.Errorf("save snapshot at %d: %w", s.Seq, classed(err))
	}
	names, err := j.snapshotNames()
	if err != nil {
		return err
	}
	for _, old := range names[:max(0, len(names)-keptSnapshots)] {
		if err := j.fs.Remove(old); err != nil {
			return fmt.Errorf("remove old snapshot %s: %w", old, err)
		}
	}
	return nil
}

func (j *Journal) isClosed() bool {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.closed
}

// snapshotNames lists them, oldest first.
func (j *Journal) snapshotNames() ([]string, error) {
	names, err := j.fs.List()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(name, snapshotPrefix) || strings.HasSuffix(name, newSuffix)
	})
	slices.Sort(names)
	return names, nil
}

// LoadSnapshot gives the newest snapshot that matches; see Log.
func (j *Journal) LoadSnapshot(schema uint32) (Snapshot, error) {
	j.snapshots.Lock()
	defer j.snapshots.Unlock()
	if j.isClosed() {
		return Snapshot{}, errClosed()
	}
	names, err := j.snapshotNames()
	if err != nil {
		return Snapshot{}, err
	}
	for _, name := range slices.Backward(names) {
		s, err := j.readSnapshot(name, schema)
		if err == nil {
			return s, nil
		}
		if err := j.fs.Remove(name); err != nil {
			return Snapshot{}, fmt.Errorf("remove snapshot %s: %w", name, err)
		}
	}
	return Snapshot{}, fmt.Errorf("snapshot of schema %d: %w", schema, errdefs.ErrNotFound)
}

func (j *Journal) readSnapshot(name string, schema uint32) (Snapshot, error) {
	b, err := readFile(j.fs, name, maxSnapshot)
	if err != nil {
		return Snapshot{}, err
	}
	s, err := decodeSnapshot(b)
	if err != nil {
		return s, err
	}
	if s.Schema != schema || name != snapshotName(s.Seq) {
		return s, damaged("schema %d, wanted %d", s.Schema, schema)
	}
	return s, checkChain(j, s)
}
