package execnative

import (
	"archive/tar"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/sdk/execdriver"
)

// halfCopy is a copy into a container of which the first file has come.
type halfCopy struct {
	conn net.Conn
	tw   *tar.Writer
	done chan error
}

func (b *bench) beginCopyIn(c execdriver.Copy, first string) *halfCopy {
	b.t.Helper()
	h := &halfCopy{done: make(chan error, 1)}
	go func() { h.done <- b.d.CopyIn(context.Background(), c) }()
	var err error
	if h.conn, err = b.dialCopy(c, h.done); err != nil {
		b.t.Fatal(err)
	}
	h.tw = tar.NewWriter(h.conn)
	h.put(b, first)
	b.eventually("the first file is there", func() bool {
		look := c
		look.Path = c.Path + "/" + first
		st, err := b.d.Stat(context.Background(), look)
		return err == nil && st.Size == int64(len("of "+first))
	})
	return h
}

func (h *halfCopy) put(b *bench, name string) {
	b.t.Helper()
	e := file(name, "of "+name)
	e.Size = int64(len(e.text))
	if err := h.tw.WriteHeader(&e.Header); err != nil {
		b.t.Fatal(err)
	}
	if _, err := h.tw.Write([]byte(e.text)); err != nil {
		b.t.Fatal(err)
	}
	if err := h.tw.Flush(); err != nil {
		b.t.Fatal(err)
	}
}

// end puts a file in the place of one of the image, which overlay does in its work
// directory, and ends the copy.
func (h *halfCopy) end(b *bench, last string) error {
	b.t.Helper()
	h.put(b, last)
	h.tw.Close()
	h.conn.(interface{ CloseWrite() error }).CloseWrite()
	defer h.conn.Close()
	return <-h.done
}

// TestWritersTakeTurns: a second copy into a container that does not run, and its
// start, wait for the first; reading does not, and takes nothing from it.
func TestWritersTakeTurns(t *testing.T) {
	for _, kind := range []string{"plain", "mapped"} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t)
			ask := b.request
			if kind == "mapped" {
				ask = b.mapped
			}
			r := ask("cat /etc/passwd /etc/group /etc/early /etc/other; sleep 1000")
			b.checkTurns(r)
		})
	}
}

func (b *bench) checkTurns(r execdriver.Start) {
	t := b.t
	first := b.beginCopyIn(copyOf(r, "/etc", false), "early")
	second := make(chan error, 1)
	go func() { second <- b.copyIn(copyOf(r, "/etc", false), file("other", "other")) }()
	if out, err := b.copyOut(copyOf(r, "/etc/early", false)); err != nil || len(out) != 1 || !strings.HasSuffix(out[0], "0:0 of early") {
		t.Errorf("read meanwhile: %q %v", out, err)
	}
	select {
	case err := <-second:
		t.Errorf("the second copy did not wait: %v", err)
		second <- err
	case <-time.After(100 * time.Millisecond):
	}
	if err := first.end(b, "group"); err != nil {
		t.Errorf("the first copy: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second copy: %v", err)
	}
	third := b.beginCopyIn(copyOf(r, "/etc", false), "early")
	started := make(chan error, 1)
	go func() { _, err := b.d.Start(context.Background(), r); started <- err }()
	b.eventually("the start is under way", func() bool { return b.d.begun(r.Container) })
	select {
	case err := <-started:
		t.Errorf("the start did not wait: %v", err)
		started <- err
	case <-time.After(100 * time.Millisecond):
	}
	if err := b.copyIn(copyOf(r, "/etc", false), file("late", "")); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "is under way") {
		t.Errorf("a copy behind the start: %v", err)
	}
	if err := third.end(b, "passwd"); err != nil {
		t.Errorf("the copy before the start: %v", err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	b.eventually("all is there", func() bool {
		out, err := b.copyOut(copyOf(r, "/etc", true))
		text := strings.Join(out, "\n")
		return err == nil && strings.Contains(text, "of group") && strings.Contains(text, "of passwd") && strings.Contains(text, "of early") && strings.Contains(text, "other")
	})
	if err := b.copyIn(copyOf(r, "/etc", false), file("late", "")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a copy as if it did not run: %v", err)
	}
}

// TestWriterThatDoesNotEnd: who waited for it in vain, another copy or a start, is
// refused and leaves nothing; when it ends all the same, both go.
func TestWriterThatDoesNotEnd(t *testing.T) {
	b := newBench(t)
	b.d.writers.wait = 50 * time.Millisecond
	r := b.request("cat /etc/early /etc/other; sleep 1000")
	long := b.beginCopyIn(copyOf(r, "/etc", false), "early")
	refused := func(what string, err error) {
		t.Helper()
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "a copy into container") {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	refused("a second copy", b.copyIn(copyOf(r, "/etc", false), file("other", "other")))
	_, err := b.d.Start(context.Background(), r)
	refused("a start", err)
	if b.d.begun(r.Container) {
		t.Error("the refused start is still under way")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.d.writers.wait = time.Hour
	if _, err := b.d.writers.take(ctx, r.Container); !errors.Is(err, context.Canceled) {
		t.Errorf("one who goes: %v", err)
	}
	if err := long.end(b, "group"); err != nil {
		t.Errorf("the long copy: %v", err)
	}
	if err := b.copyIn(copyOf(r, "/etc", false), file("other", "other")); err != nil {
		t.Errorf("a copy behind it: %v", err)
	}
	if _, err := b.d.Start(context.Background(), r); err != nil {
		t.Errorf("a start behind it: %v", err)
	}
}
