package seccomp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// diskMagic begins a kept filter. It changes with the compiler: what an older one
// has made is not found.
const diskMagic = "GSF3"

// diskHead is the length of what stands before the filter:
//
//	4 bytes magic, u32 flags, 32 bytes SHA-256 of flags and filter
const diskHead = 8 + sha256.Size

// Disk keeps compiled filters in a directory of one's own, for a program that
// runs once for each container. A file is named by the hash of what its filter was
// made of, and holds the hash of what it should be.
type Disk struct {
	Dir    string // mode 0700
	Kernel string // release, since profiles mean different things to different ones
}

// name is the file of a profile in its JSON.
func (d Disk) name(profile []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s\x00", diskMagic, runtime.GOARCH, d.Kernel)
	h.Write(profile)
	return filepath.Join(d.Dir, hex.EncodeToString(h.Sum(nil)))
}

// Find is the filter of a profile that was kept, with its flags. A file that is
// not this user's alone, or not whole, is none.
func (d Disk) Find(profile []byte) (filter []byte, flags uint32, ok bool) {
	f, err := os.OpenFile(d.name(profile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode != unix.S_IFREG|0o600 || int(st.Uid) != os.Geteuid() {
		return nil, 0, false
	}
	if st.Size <= diskHead || st.Size > diskHead+maxInstructions*8 || (st.Size-diskHead)%8 != 0 {
		return nil, 0, false
	}
	b := make([]byte, st.Size)
	if n, err := unix.Pread(int(f.Fd()), b, 0); err != nil || n != len(b) || string(b[:4]) != diskMagic {
		return nil, 0, false
	}
	if sum := sealOf(b[4:8], b[diskHead:]); !bytes.Equal(sum, b[8:diskHead]) {
		return nil, 0, false
	}
	return b[diskHead:], binary.LittleEndian.Uint32(b[4:]), true
}

// sealOf is the hash that a file carries.
func sealOf(flags, filter []byte) []byte {
	h := sha256.New()
	h.Write(flags)
	h.Write(filter)
	return h.Sum(nil)
}

// keep stores a filter. It is in place whole or not at all; a failure costs the
// next one its time only.
func (d Disk) keep(profile, filter []byte, flags uint32) {
	if err := os.Mkdir(d.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return
	}
	b := binary.LittleEndian.AppendUint32([]byte(diskMagic), flags)
	b = append(b, sealOf(b[4:8], filter)...)
	f, err := os.CreateTemp(d.Dir, ".new-") // mode 0600
	if err != nil {
		return
	}
	_, err = f.Write(append(b, filter...))
	if errors.Join(err, f.Close()) != nil || os.Rename(f.Name(), d.name(profile)) != nil {
		_ = os.Remove(f.Name())
	}
}

// Compile is the filter of a profile, given both as it was read and in its JSON,
// and the flags that it is loaded with: kept from before, or compiled and kept.
func (d Disk) Compile(p *specs.LinuxSeccomp, profile []byte) (filter []byte, flags uint32, err error) {
	if filter, flags, ok := d.Find(profile); ok {
		return filter, flags, nil
	}
	if flags, err = FlagsOf(p); err != nil {
		return nil, 0, err
	}
	prog, err := Compile(p)
	if err != nil {
		return nil, 0, err
	}
	filter = prog.Bytes()
	d.keep(profile, filter, flags)
	return filter, flags, nil
}
