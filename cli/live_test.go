package cli_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/ask"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
)

// fakeFiles are the files of every container, by path; the name of a directory
// ends with a slash, what begins with "-> " is a symbolic link.
type fakeFiles struct {
	mu    sync.Mutex
	files map[string]string
}

func newFakeFiles() *fakeFiles {
	return &fakeFiles{files: map[string]string{
		"/": "", "/etc/": "", "/etc/motd": "welcome\n", "/etc/conf/": "", "/etc/conf/a": "a\n", "/link": "-> /etc/motd", "/tmp/": "",
	}}
}

func (f *fakeFiles) stat(name string) (*query.PathStat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	s := &query.PathStat{Name: path.Base(name), Mode: 0o100644, ModTime: time.Unix(1e9, 0)}
	content, ok := f.files[name]
	if link, is := strings.CutPrefix(content, "-> "); is {
		s.Mode, s.Link = 0o120777, link
	}
	if !ok {
		if _, ok = f.files[strings.TrimSuffix(name, "/")+"/"]; !ok {
			return nil, errclass.Errorf(errdefs.ErrNotFound, "%s: no such file or directory", name)
		}
		s.Mode = 0o040755
	}
	s.Size = int64(len(content))
	return s, nil
}

// out writes what is at a path as a tar.
func (f *fakeFiles) out(name string, w io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := tar.NewWriter(w)
	name = path.Clean(name)
	base := path.Base(name)
	add := func(file, content string) error {
		h := &tar.Header{Name: path.Join(base, strings.TrimPrefix(file, name)), Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(content))}
		if strings.HasSuffix(file, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			h.Name += "/"
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(t, content)
		return err
	}
	if content, ok := f.files[name]; ok && name != "/" {
		return errors.Join(add(name, content), t.Close())
	}
	dir := strings.TrimSuffix(name, "/") + "/"
	if err := add(dir, ""); err != nil {
		return err
	}
	for file, content := range f.files {
		if strings.HasPrefix(file, dir) && file != dir {
			if err := add(file, content); err != nil {
				return err
			}
		}
	}
	return t.Close()
}

// in unpacks a tar into a directory.
func (f *fakeFiles) in(dir string, r io.Reader) error {
	if _, err := f.stat(dir); err != nil {
		return err
	}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "read the archive: %w", err)
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		name := path.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir && name != "/" {
			name += "/"
		}
		f.mu.Lock()
		f.files[name] = string(content)
		f.mu.Unlock()
	}
}

// Ask answers what is asked of drivers.
func (h *fakeHost) Ask(ctx context.Context, a bus.Ask, out any) error {
	give := func(v any, err error) error {
		if err != nil || out == nil {
			return err
		}
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, out)
	}
	var runs ask.Runs
	var c ask.Copy
	if err := errors.Join(json.Unmarshal(a.Body, &runs), json.Unmarshal(a.Body, &c)); err != nil {
		return err
	}
	switch a.Verb {
	case ask.ExecProcesses:
		return give(ask.Tasks{Tasks: []query.Task{
			{PID: 42, PPID: 1, User: "root", TTY: "?", CPU: 61 * time.Second, Started: time.Now().Add(-time.Hour), RSS: 1 << 20, Name: "sleep", Args: []string{"sleep", "1000"}},
			{PID: 43, PPID: 42, UID: 5, User: "games", TTY: "pts/0", Started: time.Now(), Name: "zombie"},
		}}, nil)
	case ask.ExecStats:
		var s ask.Stats
		for _, r := range runs.Runs {
			s.Runs = append(s.Runs, h.sampleOf(r))
		}
		return give(s, nil)
	case ask.RootfsChanges:
		return give(ask.Changes{Changes: []query.Change{{Kind: "C", Path: "/etc"}, {Kind: "A", Path: "/etc/new"}, {Kind: "D", Path: "/gone"}}}, nil)
	case ask.ExecStatPath:
		stat, err := h.files.stat(c.Path)
		return give(stat, err)
	case ask.ExecCopyOut, ask.ExecCopyIn:
		return h.copy(ctx, &c, a.Verb == ask.ExecCopyOut)
	}
	return errclass.Errorf(errdefs.ErrNotImplemented, "nobody answers %s", a.Verb)
}

// sampleOf: half a processor is busy all the time.
func (h *fakeHost) sampleOf(r ask.Run) query.Stats {
	now := time.Now()
	return query.Stats{
		Container: r.Container, Running: true, Time: now, CPU: now.Sub(time.Unix(0, 0)) / 2, CPUs: 2,
		MemoryBytes: 12 << 20, MemoryInactive: 2 << 20, MemoryLimit: 64 << 20, ReadBytes: 4_100_000, Pids: 3,
		Interfaces: []query.InterfaceStats{{Name: "eth0", RxBytes: 1536, TxBytes: 648}},
	}
}

func (h *fakeHost) copy(ctx context.Context, c *ask.Copy, out bool) error {
	l, err := net.Listen("unix", h.w.path("run", c.Socket))
	if err != nil {
		return err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // wakes the wait for a client
	defer stop()
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if !out {
		return h.files.in(c.Path, conn)
	}
	var whole bytes.Buffer
	if err := h.files.out(c.Path, &whole); err != nil {
		return err
	}
	_, err = conn.Write(whole.Bytes())
	return err
}

// probe reports what the test of a health check says: its last word.
func (h *fakeHost) probe(w *core.WatchHealth) {
	status := core.Healthy
	if strings.Contains(strings.Join(w.Spec.Test, " "), "sick") {
		status = core.Unhealthy
	}
	now := time.Now()
	h.report("exec", "native", "container.report-health", core.ReportHealth{
		Container: w.Container, Run: w.Run, Status: status,
		Probes: []core.HealthProbe{{Begun: now, Ended: now, Code: 1, Output: "out of order\n"}},
	})
}
