package faultfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// file is an open file.
type file struct {
	fs     *FS
	name   string
	node   *node
	closed bool // guarded by fs.mu
}

// begin locks and asks whether op may go on; the caller unlocks.
func (f *file) begin(op Op) Fault {
	f.fs.mu.Lock()
	if f.closed {
		return Fault{Err: fmt.Errorf("%s %s: %w", op.Kind, f.name, fs.ErrClosed)}
	}
	op.Name = f.name
	return f.fs.begin(op)
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	fault := f.begin(Op{Kind: Read, Off: off, Len: int64(len(b))})
	defer f.fs.mu.Unlock()
	if fault.Err != nil {
		return 0, fault.Err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	fault := f.begin(Op{Kind: Write, Off: off, Len: int64(len(b))})
	defer f.fs.mu.Unlock()
	if fault.Err != nil {
		b = b[:min(fault.Short, len(b))]
	} else if room := f.fs.room(f.node, off+int64(len(b))); room < 0 {
		fault.Err = syscall.ENOSPC
		b = b[:max(0, int64(len(b))+room)]
	}
	if len(b) > 0 {
		f.node.data = put(f.node.data, off, b)
		f.node.pending = append(f.node.pending, change{off, slices.Clone(b)})
	}
	return len(b), fault.Err
}

// room is what is left if n grows to size; negative if that is too much.
func (s *FS) room(n *node, size int64) int64 {
	if grown := size - int64(len(n.data)); s.capacity > 0 && grown > 0 {
		return s.capacity - s.used() - grown
	}
	return 0
}

func (f *file) Truncate(size int64) error {
	fault := f.begin(Op{Kind: Truncate, Off: size})
	defer f.fs.mu.Unlock()
	if fault.Err != nil {
		return fault.Err
	}
	f.node.setLength(size)
	return nil
}

func (n *node) setLength(size int64) {
	if size == int64(len(n.data)) {
		return
	}
	n.data = resize(n.data, size)
	n.pending = append(n.pending, change{off: size})
}

func (f *file) Size() (int64, error) {
	fault := f.begin(Op{Kind: Read})
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), fault.Err
}

// Allocate grows as far as it can before it fails, as ext4 does.
func (f *file) Allocate(from, to int64) error {
	fault := f.begin(Op{Kind: Allocate, Off: from, Len: to - from})
	defer f.fs.mu.Unlock()
	if fault.Err != nil {
		return fault.Err
	}
	var err error
	if room := f.fs.room(f.node, to); room < 0 {
		to, err = to+room, syscall.ENOSPC
	}
	if to > int64(len(f.node.data)) {
		f.node.setLength(to)
	}
	return err
}

func (f *file) Datasync() error {
	fault := f.begin(Op{Kind: Datasync})
	defer f.fs.mu.Unlock()
	if fault.Err != nil {
		f.node.flush(f.fs.choose) // the rest is "clean" from now on and lost
		return fault.Err
	}
	for _, c := range f.node.pending {
		if c.data == nil {
			f.node.disk = resize(f.node.disk, c.off)
		} else {
			f.node.disk = put(f.node.disk, c.off, c.data)
		}
	}
	f.node.pending = nil
	return nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return fmt.Errorf("close %s: %w", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
