package faultfs

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/eventlog"
)

// Sector is what the disk writes whole or not at all, in bytes.
const Sector = 512

// Kind names an operation.
type Kind string

// The operations that a fault can hit.
const (
	Open     Kind = "open"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Allocate Kind = "allocate"
	Datasync Kind = "datasync"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
	SyncDir  Kind = "syncdir"
	List     Kind = "list"
	Lock     Kind = "lock"
	Read     Kind = "read"
)

// Op is one operation that is about to be done.
type Op struct {
	Kind Kind
	Name string // of the file as it was opened
	Off  int64  // bytes, for read, write and allocate
	Len  int64  // bytes, for read, write and allocate
}

// Fault is what happens to an operation. The zero value lets it through.
type Fault struct {
	Err error
	// Short is how many bytes a failing write writes nevertheless.
	Short int
}

// FS is one directory.
type FS struct {
	// mu guards all below and the files.
	mu       sync.Mutex
	choose   func(n int) int
	fault    func(Op) Fault
	capacity int64
	names    map[string]*node // what programs see
	durable  map[string]*node // what is on the disk
	journal  []map[string]*node
	locked   bool
	dead     bool
}

// node is one file's content.
type node struct {
	data    []byte   // what programs see
	disk    []byte   // what is on the disk
	pending []change // from disk to data, in order
}

// change is a write, or with data nil a new length.
type change struct {
	off  int64
	data []byte
}

// New gives an empty directory. choose(n) picks a number from 0 to n-1.
func New(choose func(n int) int) *FS {
	return &FS{choose: choose, names: map[string]*node{}, durable: map[string]*node{}}
}

// SetFault makes f decide about every operation; nil lets all through. f is
// called with the filesystem locked and must not use it.
func (s *FS) SetFault(f func(Op) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// SetCapacity bounds the sum of all lengths in bytes; 0 is without bound.
func (s *FS) SetCapacity(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = bytes
}

// Used is the sum of all lengths in bytes.
func (s *FS) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used()
}

func (s *FS) used() int64 {
	var sum int64
	for _, n := range s.names {
		sum += int64(len(n.data))
	}
	return sum
}

// Kill ends the process that uses s and gives the directory as the next one
// finds it: all that was written is there, synced or not.
func (s *FS) Kill() *FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	return &FS{choose: s.choose, capacity: s.capacity, names: s.names, durable: s.durable, journal: s.journal}
}

// Crash takes the power away and gives the directory as it is found afterwards.
func (s *FS) Crash() *FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	names := s.durable
	if kept := s.choose(len(s.journal) + 1); kept > 0 {
		names = s.journal[kept-1]
	}
	after := New(s.choose)
	after.capacity = s.capacity
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		n.flush(s.choose)
		fresh := &node{data: slices.Clone(n.disk), disk: slices.Clone(n.disk)}
		after.names[name], after.durable[name] = fresh, fresh
	}
	return after
}

// flush writes any subset of what is pending.
func (n *node) flush(choose func(int) int) {
	for _, c := range n.pending {
		if c.data == nil {
			if choose(2) == 1 {
				n.disk = resize(n.disk, c.off)
			}
			continue
		}
		for len(c.data) > 0 {
			size := min(Sector-c.off%Sector, int64(len(c.data)))
			if choose(2) == 1 {
				n.disk = put(n.disk, c.off, c.data[:size])
			}
			c.off, c.data = c.off+size, c.data[size:]
		}
	}
	n.pending = nil
}

func put(b []byte, off int64, data []byte) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size] // what was behind must not come back
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// Flip changes one bit of a file, in memory and on the disk.
func (s *FS) Flip(name string, off int64, bit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.names[name]
	n.data[off] ^= 1 << bit
	if off < int64(len(n.disk)) {
		n.disk[off] ^= 1 << bit
	}
}

// Bytes is a copy of what programs see in a file; nil if it is not there.
func (s *FS) Bytes(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.names[name]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// Put makes a file durable with that content.
func (s *FS) Put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{data: slices.Clone(content), disk: slices.Clone(content)}
	s.names[name] = n
	s.durable = maps.Clone(s.durable)
	s.durable[name] = n
	for _, j := range s.journal {
		j[name] = n
	}
}

// Clone is an independent copy as if all had been synced; it is not locked.
func (s *FS) Clone() *FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := New(s.choose)
	after.capacity = s.capacity
	for name, n := range s.names {
		fresh := &node{data: slices.Clone(n.data), disk: slices.Clone(n.data)}
		after.names[name], after.durable[name] = fresh, fresh
	}
	return after
}

// begin asks whether an operation may go on. The caller holds mu.
func (s *FS) begin(op Op) Fault {
	if s.dead {
		return Fault{Err: fmt.Errorf("%s %s: %w", op.Kind, op.Name, syscall.EIO)}
	}
	if s.fault == nil {
		return Fault{}
	}
	return s.fault(op)
}

// Open opens or makes a file.
func (s *FS) Open(name string, create bool) (eventlog.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: Open, Name: name}); f.Err != nil {
		return nil, f.Err
	}
	n := s.names[name]
	switch {
	case n == nil && !create:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n != nil && create:
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	case n == nil:
		n = &node{}
		s.rename(func(names map[string]*node) { names[name] = n })
	}
	return &file{fs: s, name: name, node: n}, nil
}

// rename changes the directory; the change is on the disk with the next SyncDir.
func (s *FS) rename(change func(map[string]*node)) {
	s.names = maps.Clone(s.names)
	change(s.names)
	s.journal = append(s.journal, maps.Clone(s.names))
}

// Rename moves a file over another.
func (s *FS) Rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: Rename, Name: from}); f.Err != nil {
		return f.Err
	}
	n := s.names[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	s.rename(func(names map[string]*node) {
		delete(names, from)
		names[to] = n
	})
	return nil
}

// Remove takes a name away.
func (s *FS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: Remove, Name: name}); f.Err != nil {
		return f.Err
	}
	if s.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	s.rename(func(names map[string]*node) { delete(names, name) })
	return nil
}

// List gives the names, sorted.
func (s *FS) List() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: List}); f.Err != nil {
		return nil, f.Err
	}
	return slices.Sorted(maps.Keys(s.names)), nil
}

// SyncDir makes the directory's changes durable.
func (s *FS) SyncDir() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: SyncDir}); f.Err != nil {
		return f.Err
	}
	s.durable, s.journal = maps.Clone(s.names), nil
	return nil
}

// Lock fails if another one has it.
func (s *FS) Lock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.begin(Op{Kind: Lock}); f.Err != nil {
		return f.Err
	}
	if s.locked {
		return fmt.Errorf("the event log is in use: %w", errdefs.ErrFailedPrecondition)
	}
	s.locked = true
	return nil
}

// Close gives up the lock; the directory can be used on.
func (s *FS) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = false
	return nil
}
