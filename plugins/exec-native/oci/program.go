package oci

import (
	"errors"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ProgramPaths lists where the program may be: as it is if it has a slash,
// otherwise in each directory of PATH.
func ProgramPaths(p *specs.Process) ([]string, error) {
	program := p.Args[0]
	if program == "" {
		return nil, nil // a directory of PATH is no program
	}
	if strings.Contains(program, "/") {
		return []string{program}, nil
	}
	var out []string
	for _, v := range p.Env {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(list, ":") {
			if path.IsAbs(dir) { // others would depend on the working directory
				out = append(out, path.Join(dir, program))
			}
		}
	}
	if len(out) > plan.MaxTries {
		return nil, errclass.Errorf(errdefs.ErrInvalidArgument, "PATH of %d directories: at most %d", len(out), plan.MaxTries)
	}
	return out, nil
}

// CheckPrograms looks for a program before anything is started: an error is then
// that of the creation. Where a mount covers a candidate that the init makes
// later, it is left to the exec.
func (v View) CheckPrograms(program string, candidates []string) error {
	var found error
	for _, c := range candidates {
		if !path.IsAbs(c) || v.covered(c) {
			return nil
		}
		f, err := v.open(c)
		if err != nil {
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
				return nil // the exec will tell
			}
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		f.Close()
		if err != nil || st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return nil
		}
		found = programError(unix.EACCES, program, v.Root)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			found = programError(unix.EISDIR, program, v.Root)
		}
	}
	if found == nil {
		found = programError(unix.ENOENT, program, v.Root)
	}
	return found
}

// covered reports whether a path lies on a mount that the init makes.
func (v View) covered(name string) bool {
	for i, m := range v.Mounts {
		if v.Opened[i].File == nil && strings.HasPrefix(name, strings.TrimSuffix(m.Destination, "/")+"/") {
			return true
		}
	}
	return false
}
