package oci

import (
	"os"

	"github.com/gantryd/gantry/plugins/exec-native/plan"
)

// Files collects the files that go to the shim.
type Files struct {
	All []*os.File // in the order of their FDs
	own []*os.File // those that end with Close
}

// Lend gives files their places that stay open afterwards.
func (b *Files) Lend(files []*os.File) []plan.FD {
	out := make([]plan.FD, 0, len(files))
	for _, f := range files {
		b.All = append(b.All, f)
		out = append(out, plan.FD(len(b.All)-1))
	}
	return out
}

// Add gives a file its place. Close closes it.
func (b *Files) Add(f *os.File) plan.FD {
	if f == nil {
		return plan.NoFD
	}
	b.own = append(b.own, f)
	return b.Lend([]*os.File{f})[0]
}

// AddAll gives each file its place.
func (b *Files) AddAll(files []*os.File) []plan.FD {
	out := make([]plan.FD, 0, len(files))
	for _, f := range files {
		out = append(out, b.Add(f))
	}
	return out
}

// Hold keeps a file open that does not go to the shim. Close closes it.
func (b *Files) Hold(f *os.File) { b.own = append(b.own, f) }

// Close closes the files that were not lent.
func (b *Files) Close() {
	for _, f := range b.own {
		f.Close()
	}
}
