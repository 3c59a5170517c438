package resctrl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Domain is what a group used of one domain (a cache, mostly), in bytes. A
// counter that the processor has not got, or cannot tell just now, is nil.
type Domain struct {
	Name      string // "L3_00"
	Occupancy *uint64
	Traffic   *uint64 // with all memory
	Local     uint64  // of it, with the domain's own
}

// Read tells what the container's group used, or its own class; nothing of a
// class that others are in too.
func (r Root) Read(c Class) ([]Domain, error) {
	dir := r.dir(c)
	switch {
	case c.Monitor != "":
		dir = r.monitor(c)
	case !c.Own:
		return nil, nil
	}
	found, err := filepath.Glob(filepath.Join(dir, "mon_data", "mon_*")) // sorted
	if err != nil {
		return nil, err
	}
	var all []Domain
	for _, path := range found {
		occupancy, err1 := counter(path, "llc_occupancy")
		traffic, err2 := counter(path, "mbm_total_bytes")
		local, err3 := counter(path, "mbm_local_bytes")
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("linux.intelRdt: %w", err)
		}
		d := Domain{Name: strings.TrimPrefix(filepath.Base(path), "mon_"), Occupancy: occupancy, Traffic: traffic}
		if local != nil {
			d.Local = *local
		}
		all = append(all, d)
	}
	return all, nil
}

// counter reads one number. There may be none, and the kernel has words for one
// that cannot be told ("Unavailable", "Error").
func counter(dir, name string) (*uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, nil //nolint:nilerr // a word
	}
	return &n, nil
}
