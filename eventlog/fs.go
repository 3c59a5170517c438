package eventlog

import "io"

// FS is the directory that a log lives in. Names are plain file names. Errors of
// the kind "no space" must be errors.Is syscall.ENOSPC or EDQUOT, "no such
// file" fs.ErrNotExist.
type FS interface {
	// Open opens a file for reading and writing; with create it is made and
	// must not be there.
	Open(name string, create bool) (File, error)
	// Rename moves a file over another one, atomically.
	Rename(from, to string) error
	// Remove takes a name away.
	Remove(name string) error
	// List gives the names in the directory in any order.
	List() ([]string, error)
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
	// Lock makes the caller the only writer of the directory until Close, or
	// fails at once with failed precondition.
	Lock() error
	// Close gives up the lock and the directory.
	Close() error
}

// File is one file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Truncate sets the length in bytes.
	Truncate(size int64) error
	// Size is the length in bytes.
	Size() (int64, error)
	// Allocate promises space for the bytes from..to and makes the file at
	// least to bytes long; what is new reads as zeros, what is there stays.
	Allocate(from, to int64) error
	// Datasync returns nil only when all that was written is durable.
	Datasync() error
	// Close releases the file; it makes nothing durable.
	Close() error
}
