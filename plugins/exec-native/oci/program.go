package oci

import (
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ProgramPaths lists where the program may be: as it is if it has a slash,
// otherwise in each directory of PATH.
func ProgramPaths(p *specs.Process) ([]string, error) {
	program := p.Args[0]
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
