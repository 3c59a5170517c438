package plan

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSealWays runs a shim from a memfd and from a mount, and changes neither,
// though root may try by the link that a container sees too.
func TestSealWays(t *testing.T) {
	for name, way := range map[string]struct {
		seal func(string) (*os.File, error)
		want error
	}{"memfd": {sealCopy, unix.EPERM}, "mount": {sealMount, unix.EROFS}} {
		t.Run(name, func(t *testing.T) {
			f, err := way.seal(ownShim(t))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s := newShim(t, Monitor{}, 0).host("/bin/sh", "-c", "exit 3")
			s.program = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
			s.start().until(ReportExited)
			eventually(t, "end of the shim, which alone would refuse it", func() bool {
				var w *os.File
				if w, err = os.OpenFile(s.program, os.O_WRONLY, 0); err == nil {
					_, err = w.Write([]byte("x"))
					w.Close()
				}
				return !errors.Is(err, unix.ETXTBSY)
			})
			if !errors.Is(err, way.want) {
				t.Errorf("writing to the program: %v, want %v", err, way.want)
			}
		})
	}
}

// TestNoRelocations: nothing would carry them out before the shim's first
// instruction, so an array of addresses would hold nonsense.
func TestNoRelocations(t *testing.T) {
	path, err := buildShim()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		if (s.Type == elf.SHT_RELA || s.Type == elf.SHT_REL) && s.Size > 0 {
			t.Errorf("%s holds %d bytes", s.Name, s.Size)
		}
	}
}
