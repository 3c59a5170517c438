package cli

import (
	"context"

	"github.com/gantryd/gantry/internal/query"
)

// dockerExec is an exec in the form of Docker's API.
type dockerExec struct {
	ID            string
	ContainerID   string
	Running       bool
	ExitCode      *int // nil while it has none
	Pid           int
	OpenStdin     bool
	OpenStdout    bool
	OpenStderr    bool
	CanRemove     bool
	DetachKeys    string
	ProcessConfig dockerExecProcess
	Error         string `json:",omitempty"`
}

type dockerExecProcess struct {
	Entrypoint string   `json:"entrypoint"`
	Arguments  []string `json:"arguments"`
	TTY        bool     `json:"tty"`
	Privileged bool     `json:"privileged"`
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	Env        []string `json:"env,omitempty"`
}

// inspectExec finds an exec by its id or the beginning of it.
func (a *app) inspectExec(ctx context.Context, ref string) (any, error) {
	var d query.ExecDetail
	if err := a.query(ctx, query.ContainerExec, query.RefIn{Ref: ref}, &d); err != nil {
		return nil, err
	}
	x, sp := &d.Exec, &d.Exec.Spec
	v := dockerExec{
		ID: string(x.ID), ContainerID: string(d.Container), Running: x.PID != 0 && !x.Exited && x.Fault == nil, Pid: x.PID,
		OpenStdin: sp.OpenStdin, OpenStdout: x.Attach, OpenStderr: x.Attach,
		ProcessConfig: dockerExecProcess{
			TTY: sp.TTY, Privileged: sp.Privileged, User: sp.User, WorkingDir: sp.Cwd, Env: environmentView(sp.Env),
		},
	}
	if len(sp.Args) > 0 {
		v.ProcessConfig.Entrypoint, v.ProcessConfig.Arguments = sp.Args[0], sp.Args[1:]
	}
	switch {
	case x.Exit != nil:
		v.ExitCode, v.Pid = &x.Exit.Code, 0
	case x.Fault != nil:
		code := execCode(x.Fault)
		v.ExitCode, v.Error = &code, x.Fault.Message
	}
	return v, nil
}
