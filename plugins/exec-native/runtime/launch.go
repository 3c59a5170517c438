package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/plugins/exec-native/oci"
	"github.com/gantryd/gantry/plugins/exec-native/plan"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shimPaths lists where gantry-shim may be: beside this program, as in a build,
// or where it is installed.
func shimPaths() []string {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return []string{"/usr/libexec/gantry/gantry-shim"}
	}
	dir := filepath.Dir(self)
	return []string{
		filepath.Join(dir, "gantry-shim"), filepath.Join(dir, "../libexec/gantry/gantry-shim"), "/usr/libexec/gantry/gantry-shim",
	}
}

// warmShim is a shim that waits for its plan.
type warmShim struct {
	warm *plan.Warm
	err  error
}

// goSpawn executes the shim beside the preparations. It runs from a sealed copy:
// a container cannot write to the file that the next one starts with.
func goSpawn(into *os.File) <-chan warmShim {
	out := make(chan warmShim, 1)
	go func() {
		var w warmShim
		w.warm, w.err = spawn(into)
		out <- w
	}()
	return out
}

// spawn executes the shim, in a version 2 cgroup if one is given.
func spawn(into *os.File) (*plan.Warm, error) {
	var sealed *os.File
	err := error(errclass.Errorf(errdefs.ErrNotFound, "gantry-shim: not found beside this program"))
	for _, path := range shimPaths() {
		if sealed, err = plan.Seal(path); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find the shim: %w", err)
	}
	defer sealed.Close()
	return plan.SpawnInto(fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()), into)
}

// progress follows a start until it has come where its command wants it.
type progress struct {
	g      *globals
	conn   *plan.Conn
	onInit func(pid int) error // the first process exists
	onTTY  func(master *os.File) error
	onSync func(ctx context.Context) error
	listen *listening
}

// listening is who gets a seccomp listener, and from whom it is fetched.
type listening struct {
	path, metadata string
	pidfd          func() *os.File
	state          func() specs.State
}

// until reads reports up to the one wanted: Gate or Running.
func (p *progress) until(ctx context.Context, want plan.ReportKind) error {
	for {
		rep, err := p.conn.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return errclass.Errorf(errdefs.ErrUnavailable, "the container's init was lost during the start")
		case err != nil:
			return fmt.Errorf("follow the start: %w", err)
		}
		if err := p.take(ctx, rep); err != nil {
			return err
		}
		if rep.Kind == want {
			return nil
		}
	}
}

// take does what one report asks for.
func (p *progress) take(ctx context.Context, rep plan.Report) error {
	switch rep.Kind {
	case plan.ReportInit:
		return p.onInit(rep.PID)
	case plan.ReportConsole:
		return p.onTTY(rep.File)
	case plan.ReportSync:
		if err := p.onSync(ctx); err != nil {
			return err
		}
		return p.conn.Continue(rep.Point)
	case plan.ReportListener:
		return p.handOver(ctx, rep)
	case plan.ReportWarning:
		p.g.log.warn("%v", rep.Err())
	case plan.ReportError:
		return &oci.ShimError{Report: rep}
	}
	return nil
}

// handOver brings the seccomp listener to its agent.
func (p *progress) handOver(ctx context.Context, rep plan.Report) error {
	if p.listen == nil {
		return errclass.Errorf(errdefs.ErrInternal, "a seccomp listener that nobody has asked for")
	}
	pidfd := p.listen.pidfd()
	if pidfd == nil {
		return errclass.Errorf(errdefs.ErrUnavailable, "the process was lost before its seccomp listener was fetched")
	}
	f, err := rep.Listener(ctx, int(pidfd.Fd()))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sendListener(p.listen.path, p.listen.metadata, f, p.listen.state()); err != nil {
		return err
	}
	return p.conn.Continue(rep.Point)
}

// listener says who gets a bundle's listener; nil for nobody.
func (b *bundle) listener(flags uint32, pidfd func() *os.File, state func() specs.State) (*listening, error) {
	const newListener = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	if flags&newListener == 0 {
		return nil, nil
	}
	p, err := b.seccomp()
	if err != nil {
		return nil, err
	}
	return &listening{p.ListenerPath, p.ListenerMetadata, pidfd, state}, nil
}
