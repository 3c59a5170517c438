package sim

import (
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/eventlog/faultfs"
)

// crashPlan says when the engine's process ends: at the in-th effect from now,
// or at the in-th one of a kind.
type crashPlan struct {
	in    int // 0: never
	at    string
	power bool
}

// CrashPoints are the effects before which the engine's process ends.
func CrashPoints() []string {
	return []string{
		"create", "write", "half a write", "truncate", "allocate", "datasync", "synced", "rename", "remove", "syncdir",
		"reply", "committed", "send", "cancel", "ended", "key saved", "key destroyed",
	}
}

// point is an effect that is about to happen. The engine's process may end here.
func (s *sim) point(name string) {
	if s.plan.in == 0 || s.calm || s.plan.at != "" && s.plan.at != name {
		return
	}
	if s.plan.in--; s.plan.in > 0 {
		return
	}
	mode := "killed"
	if s.plan.power {
		mode = "power lost"
	}
	s.cover.see("crash", name+", "+mode)
	panic(crashed{name, s.plan.power})
}

// DiskFaults are what goes wrong with the disk.
func DiskFaults() []string {
	return []string{"write: no space", "write: error", "fsync: error", "full"}
}

// disk is what the engine's process writes to. It implements eventlog.FS: a
// point before each effect, and faultfs behind it.
type disk struct {
	s       *sim
	files   *faultfs.FS
	trouble string // the fault that hits next
	excused bool   // a fault has hit since the engine's process began
}

func newDisk(s *sim) *disk {
	d := &disk{s: s}
	d.use(faultfs.New(s.r.IntN))
	return d
}

// use goes on with the files as a crash has left them.
func (d *disk) use(files *faultfs.FS) {
	d.files, d.excused = files, false
	files.SetCapacity(0)
	files.SetFault(d.fault)
}

// fault hits a write or an fsync, once. Reads come from several goroutines and
// are let through without a look.
func (d *disk) fault(op faultfs.Op) faultfs.Fault {
	hit := func(err error) faultfs.Fault {
		d.s.cover.see("disk", d.trouble)
		d.s.trace("disk: %s", d.trouble)
		d.trouble, d.excused = "", true
		return faultfs.Fault{Err: err, Short: d.s.r.IntN(int(op.Len) + 1)}
	}
	switch {
	case op.Kind == faultfs.Write && d.trouble == "write: no space":
		return hit(syscall.ENOSPC)
	case op.Kind == faultfs.Write && d.trouble == "write: error":
		return hit(syscall.EIO)
	case op.Kind == faultfs.Datasync && d.trouble == "fsync: error":
		return hit(syscall.EIO)
	}
	return faultfs.Fault{}
}

// excuse reports whether the engine may end because of the disk.
func (d *disk) excuse() bool { return d.excused }

// calm lets nothing go wrong any more.
func (d *disk) calm() {
	d.trouble = ""
	d.files.SetCapacity(0)
}

// full leaves next to no room.
func (d *disk) full(room int64) {
	d.s.cover.see("disk", "full")
	d.excused = true
	d.files.SetCapacity(d.files.Used() + room)
}

// Open opens or makes a file.
func (d *disk) Open(name string, create bool) (eventlog.File, error) {
	if create {
		d.s.point("create")
	}
	f, err := d.files.Open(name, create)
	if err != nil {
		return nil, err
	}
	return file{f, d.s}, nil
}

// Rename moves a file.
func (d *disk) Rename(from, to string) error {
	d.s.point("rename")
	return d.files.Rename(from, to)
}

// Remove takes a name away.
func (d *disk) Remove(name string) error {
	d.s.point("remove")
	return d.files.Remove(name)
}

// List gives the names.
func (d *disk) List() ([]string, error) { return d.files.List() }

// SyncDir makes names durable.
func (d *disk) SyncDir() error {
	d.s.point("syncdir")
	return d.files.SyncDir()
}

// Lock takes the directory.
func (d *disk) Lock() error { return d.files.Lock() }

// Close gives it up.
func (d *disk) Close() error { return d.files.Close() }

// file is an open file with a point before each effect.
type file struct {
	eventlog.File
	s *sim
}

// WriteAt writes; the process may end before it or in its midst.
func (f file) WriteAt(b []byte, off int64) (int, error) {
	f.s.point("write")
	if len(b) > 1 && f.s.plan.in > 0 && !f.s.calm {
		half := 1 + f.s.r.IntN(len(b)-1)
		if _, err := f.File.WriteAt(b[:half], off); err == nil {
			f.s.point("half a write")
		}
	}
	return f.File.WriteAt(b, off)
}

// Truncate cuts.
func (f file) Truncate(size int64) error {
	f.s.point("truncate")
	return f.File.Truncate(size)
}

// Allocate takes room.
func (f file) Allocate(from, to int64) error {
	f.s.point("allocate")
	return f.File.Allocate(from, to)
}

// Datasync makes durable; the process may end before or behind it.
func (f file) Datasync() error {
	f.s.point("datasync")
	err := f.File.Datasync()
	f.s.point("synced")
	return err
}

// keys is engine.Keys on a disk that loses nothing.
type keys struct {
	s    *sim
	kept map[core.ContainerID][]byte
}

var _ engine.Keys = (*keys)(nil)

// Load gives a key.
func (k *keys) Load(id core.ContainerID) ([]byte, error) {
	if key, ok := k.kept[id]; ok {
		return key, nil
	}
	return nil, errdefs.ErrNotFound
}

// Save keeps a key.
func (k *keys) Save(id core.ContainerID, key []byte) error {
	k.s.point("key saved")
	k.kept[id] = slices.Clone(key)
	return nil
}

// Destroy forgets a key.
func (k *keys) Destroy(id core.ContainerID) error {
	k.s.point("key destroyed")
	delete(k.kept, id)
	return nil
}

// List gives the containers that have keys.
func (k *keys) List() ([]core.ContainerID, error) { return sortedKeys(k.kept), nil }
