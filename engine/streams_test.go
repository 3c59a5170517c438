package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
	"github.com/gantryd/gantry/internal/query"
	"github.com/gantryd/gantry/internal/stdio"
)

// pathsIn is where a test's shim and its log would be.
func pathsIn(dir string) Paths {
	return Paths{
		Socket: func(id core.ContainerID, _ uint64, x core.ExecID) string {
			return filepath.Join(dir, string(id[:4])+string(x))
		},
		Copy: func(name string) string { return filepath.Join(dir, "copy-"+name) },
		Log:  func(id core.ContainerID) string { return filepath.Join(dir, "output.log") },
	}
}

func body(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAttachWaitsForTheShim(t *testing.T) {
	w := held(t, "container.start-process")
	dir, err := os.MkdirTemp("", "a") // short, for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := pathsIn(dir)
	said := make(chan string, 1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		l, err := net.Listen("unix", p.Socket(core.ContainerID(hexOf(1)), 1, ""))
		if err != nil {
			said <- err.Error()
			return
		}
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			said <- err.Error()
			return
		}
		defer c.Close()
		b := make([]byte, 5)
		_, err = io.ReadFull(c, b)
		said <- string(b)
		_ = err // the text tells
	}()
	out, file, err := w.e.Attach(t.Context(), p, body(t, query.AttachIn{Ref: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if out.Run != 1 || out.Container != core.ContainerID(hexOf(1)) {
		t.Errorf("attached to %+v", out)
	}
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "hello" {
		t.Errorf("the shim got %q", got)
	}
}

func TestAttachTellsWhyTheStartFailed(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.image()
	w.host.fail = func(s bus.Step) *bus.Error {
		if s.Verb == "container.start-process" {
			return bus.NewError(errclass.Errorf(errdefs.ErrNotFound, "no program /nope"))
		}
		return nil
	}
	w.say("container.create", create(1, "web", core.Running))
	w.settle()
	begun := time.Now()
	_, _, err := w.e.Attach(t.Context(), pathsIn(t.TempDir()), body(t, query.AttachIn{Ref: "web", Run: 1}))
	if !errdefs.IsNotFound(err) || err.Error() != "no program /nope" || time.Since(begun) > attachWithin/2 {
		t.Errorf("attach to a failed start: %v after %v", err, time.Since(begun))
	}
	w.say("container.create", create(2, "idle", core.Stopped))
	w.settle()
	if _, _, err := w.e.Attach(t.Context(), pathsIn(t.TempDir()), body(t, query.AttachIn{Ref: "idle"})); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("attach to one that does not run: %v", err)
	}
	if _, _, err := w.e.Attach(t.Context(), pathsIn(t.TempDir()), body(t, query.AttachIn{Ref: "nobody"})); !errdefs.IsNotFound(err) {
		t.Errorf("attach to nobody: %v", err)
	}
}

// logRecord is a record as the shim writes it; see package stdio.
func logRecord(stream byte, at time.Time, offset int, text string) []byte {
	le := binary.LittleEndian
	b := []byte("GLR1")
	b = le.AppendUint32(b, uint32(len(text)))
	b = le.AppendUint64(b, uint64(at.UnixNano()))
	b = le.AppendUint64(b, uint64(offset))
	b = append(b, stream, 0, 0, 0)
	b = le.AppendUint32(b, crc32.ChecksumIEEE(b))
	return append(b, text...)
}

// frames reads what Logs has sent.
func frames(t *testing.T, r io.Reader) (out []string) {
	t.Helper()
	buf := make([]byte, stdio.MaxFrame)
	for {
		f, err := stdio.ReadFrame(r, buf)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		kind := map[stdio.FrameType]string{stdio.FrameStdout: "out ", stdio.FrameStderr: "err ", stdio.FrameEnd: "end"}[f.Type]
		out = append(out, kind+string(f.Payload))
	}
}

func TestLogs(t *testing.T) {
	w := lived(t)
	dir := t.TempDir()
	p := pathsIn(dir)
	at := time.Unix(1_700_000_000, 42)
	log := append(logRecord(1, at, 0, "one\n"), logRecord(2, at.Add(time.Second), 4, "two\n")...)
	path := p.Log("")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(in query.LogsIn) []string {
		t.Helper()
		var buf bytes.Buffer
		err := w.e.Logs(t.Context(), p, body(t, in), func(query.Logs) (io.Writer, error) { return &buf, nil })
		if err != nil {
			t.Fatal(err)
		}
		return frames(t, &buf)
	}
	one := 1
	for what, c := range map[string]struct {
		in   query.LogsIn
		want string
	}{
		"all":          {query.LogsIn{Ref: "backend"}, "[out one\n err two\n end]"},
		"tail":         {query.LogsIn{Ref: "backend", Tail: &one}, "[err two\n end]"},
		"since":        {query.LogsIn{Ref: "backend", Since: at.Add(time.Second)}, "[err two\n end]"},
		"until":        {query.LogsIn{Ref: "backend", Until: at}, "[out one\n end]"},
		"follow ended": {query.LogsIn{Ref: "backend", Follow: true}, "[out one\n err two\n end]"},
		"stamped": {query.LogsIn{Ref: "backend", Until: at, Timestamps: true},
			"[out " + string(binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano()))) + "one\n end]"},
	} {
		got := "["
		for i, f := range get(c.in) {
			if i > 0 {
				got += " "
			}
			got += f
		}
		if got += "]"; got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

func TestLogsFollowUntilTheEnd(t *testing.T) {
	w := lived(t)
	p := pathsIn(t.TempDir())
	path := p.Log("")
	if err := os.WriteFile(path, logRecord(1, time.Now(), 0, "one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, pipe := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := w.e.Logs(context.Background(), p, body(t, query.LogsIn{Ref: "frontend", Follow: true}),
			func(query.Logs) (io.Writer, error) { return pipe, nil })
		pipe.Close()
		ended <- err
	}()
	buf := make([]byte, stdio.MaxFrame)
	if f, err := stdio.ReadFrame(r, buf); err != nil || string(f.Payload) != "one\n" {
		t.Fatalf("first %q, %v", f.Payload, err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(logRecord(1, time.Now(), 4, "last\n")); err != nil {
		t.Fatal(err)
	}
	w.exit(1, 1, 0) // everything is written before the exit is told
	w.settle()
	if f, err := stdio.ReadFrame(r, buf); err != nil || string(f.Payload) != "last\n" {
		t.Errorf("then %q, %v", f.Payload, err)
	}
	if f, err := stdio.ReadFrame(r, buf); err != nil || f.Type != stdio.FrameEnd {
		t.Errorf("at the end: %+v, %v", f, err)
	}
	if _, err := stdio.ReadFrame(r, buf); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
