package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/bus"
)

// memJournal is a journal in memory. Its hash covers all parts of a frame, as
// the log's does.
type memJournal struct {
	mu     sync.Mutex // guards frames
	frames []bus.Frame
	text   string // more in each event
}

func hashFrame(f bus.Frame) [32]byte {
	h := sha256.New()
	binary.Write(h, binary.LittleEndian, []uint64{f.Batch, f.First, uint64(f.Count), uint64(f.Time.UnixNano()), uint64(f.Schema), uint64(f.Flags)})
	h.Write(f.Prev[:])
	h.Write(f.Payload)
	return [32]byte(h.Sum(nil))
}

func (j *memJournal) Hash(f bus.Frame) ([32]byte, error) { return hashFrame(f), nil }

func (j *memJournal) Head() (uint64, [32]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head()
}

func (j *memJournal) head() (uint64, [32]byte) {
	if len(j.frames) == 0 {
		return 0, [32]byte{}
	}
	last := j.frames[len(j.frames)-1]
	return last.Last(), hashFrame(last)
}

func (j *memJournal) Read(from uint64, f func(bus.Frame) error) error {
	j.mu.Lock()
	frames := j.frames
	j.mu.Unlock()
	for _, frame := range frames {
		if frame.Last() >= from {
			if err := f(frame); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *memJournal) Restore(back []bus.Frame) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range back {
		seq, hash := j.head()
		if f.First != seq+1 || f.Prev != hash {
			return fmt.Errorf("frame %d does not follow %d: %w", f.First, seq, errdefs.ErrFailedPrecondition)
		}
		j.frames = append(j.frames, f)
	}
	return nil
}

// add records n events of one decision and gives their frame.
func (j *memJournal) add(n int, id, name string) bus.Frame {
	j.mu.Lock()
	defer j.mu.Unlock()
	seq, hash := j.head()
	f := bus.Frame{Batch: seq + 1, First: seq + 1, Count: uint32(n), Schema: 3, Flags: 5, Prev: hash,
		Time: time.Unix(1_800_000_000, int64(seq)*7+1).UTC()}
	noun, _, _ := strings.Cut(name, ".")
	for i := range n {
		f.Payload = fmt.Appendf(f.Payload, `{"seq":%d,"event":%q,"noun":%q,"id":%q,"text":"<&> é%s"}`+"\n", seq+1+uint64(i), name, noun, id, j.text)
	}
	j.frames = append(j.frames, f)
	return f
}

func (j *memJournal) cut(n int) *memJournal { return &memJournal{frames: j.frames[:n:n]} }

func openStream(t testing.TB, cfg Config, j *memJournal) (*Server, *Publisher, StreamReport) {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p, report, err := s.OpenStream(within(t), j)
	if err != nil {
		t.Fatal(err)
	}
	return s, p, report
}

// copied waits for the stream to have all of j, and compares frame by frame.
func copied(t testing.TB, s *Server, p *Publisher, j *memJournal) {
	t.Helper()
	head, _ := j.Head()
	if err := p.WaitCopied(within(t), head); err != nil {
		t.Fatalf("copied to %d of %d: %v", p.Copied(), head, err)
	}
	i := 0
	err := s.ReadStream(within(t), 1, func(f bus.Frame) error {
		if hashFrame(f) != hashFrame(j.frames[i]) || !bytes.Equal(f.Payload, j.frames[i].Payload) {
			return fmt.Errorf("frame %d is %+v, want %+v", i, f, j.frames[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(j.frames) {
		t.Fatalf("%d of %d frames, %v", i, len(j.frames), err)
	}
}

func TestStreamIsAnExactCopy(t *testing.T) {
	cfg, j := testConfig(t), &memJournal{}
	s, p, report := openStream(t, cfg, j)
	if report.Last != 0 || report.Restored != 0 || report.SetAside != "" {
		t.Errorf("a new stream: %+v", report)
	}
	for i := range 700 {
		p.Publish(j.add(1+i%5, fmt.Sprint("c", i%9), "container.created"))
	}
	copied(t, s, p, j)
	s.Close()

	// Behind: what came in between is caught up from the journal.
	for range 300 {
		j.add(2, "c1", "container.started")
	}
	s, p, report = openStream(t, cfg, j)
	if report.SetAside != "" || report.Restored != 0 {
		t.Errorf("a stream that is behind: %+v", report)
	}
	copied(t, s, p, j)
}

func TestAheadAndFitting(t *testing.T) {
	cfg, j := testConfig(t), &memJournal{}
	s, p, _ := openStream(t, cfg, j)
	for i := range 20 {
		p.Publish(j.add(1+i%3, "c1", "container.created"))
	}
	copied(t, s, p, j)
	s.Close()

	short := j.cut(15)
	s, p, report := openStream(t, cfg, short)
	lost := j.frames[19].Last() - j.frames[14].Last()
	if report.Restored != lost || report.SetAside != "" || len(short.frames) != 20 {
		t.Fatalf("%+v with %d frames, want %d events restored", report, len(short.frames), lost)
	}
	if short.frames[19].Prev != j.frames[19].Prev || hashFrame(short.frames[19]) != hashFrame(j.frames[19]) {
		t.Error("what was restored is not what was lost")
	}
	p.Publish(short.add(1, "c2", "container.created"))
	copied(t, s, p, short)
}

func TestNotFitting(t *testing.T) {
	grow := func(j *memJournal, n int, id string) *memJournal {
		for range n {
			j.add(2, id, "container.created")
		}
		return j
	}
	base := grow(&memJournal{}, 10, "c1")
	for name, other := range map[string]*memJournal{
		"ahead of another history":  grow(base.cut(8), 1, "other"),
		"behind another history":    grow(base.cut(8), 9, "other"),
		"as long as another":        grow(base.cut(9), 1, "other"),
		"nothing in common":         grow(&memJournal{}, 3, "other"),
		"an empty log":              {}, // everything is restored: it fits
		"a log whose last bit fell": grow(base.cut(9), 0, ""),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Log = nil // the alarm is expected
			s, p, _ := openStream(t, cfg, base.cut(10))
			if err := p.WaitCopied(within(t), 20); err != nil {
				t.Fatal(err)
			}
			s.Close()
			fits := name == "an empty log" || name == "a log whose last bit fell"
			s, p, report := openStream(t, cfg, other)
			if (report.SetAside == "") != fits {
				t.Fatalf("report %+v", report)
			}
			copied(t, s, p, other)
			if fits {
				return
			}
			// It is still there, whole, under its name; and stays aside.
			js, err := s.openJetStream(within(t))
			if err != nil {
				t.Fatal(err)
			}
			defer js.conn.Close()
			if _, last, count, err := js.state(within(t), report.SetAside); err != nil || last != 20 || count != 20 {
				t.Errorf("set aside: %d messages to %d, %v", count, last, err)
			}
			p.Publish(other.add(1, "c9", "container.created"))
			copied(t, s, p, other)
			s.Close()
			if _, _, report = openStream(t, cfg, other); report.SetAside != "" {
				t.Errorf("the new stream does not fit at the next start: %+v", report)
			}
		})
	}
}

func TestEventsLiveAndPast(t *testing.T) {
	cfg, j := testConfig(t), &memJournal{}
	for range 10 {
		j.add(3, "c1", "container.created")
	}
	s, p, _ := openStream(t, cfg, j)
	if err := s.Serve(Handlers{}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.ReadSocket())
	all, err := c.Events(within(t), 5, bus.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Events(within(t), 0, bus.Filter{Noun: "container", ID: "with.dot *"})
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(j.add(2, "c2", "container.started"))
	p.Publish(j.add(1, "with.dot *", "container.pause-wanted"))
	e, err := one.Next(within(t))
	if err != nil || e.Seq != 33 || e.ID != "with.dot *" || e.Name != "container.pause-wanted" {
		t.Errorf("filtered: %+v, %v", e, err)
	}
	// A flood that the reader does not take, then all of it is there.
	for range 3000 {
		p.Publish(j.add(1, "c3", "container.started"))
	}
	expect(t, j, all, 5)
	p.Publish(j.add(1, "c3", "container.removed"))
	if e, err := all.Next(within(t)); err != nil || e.Name != "container.removed" || e.Noun != "container" || e.ID != "c3" {
		t.Errorf("live again: %+v, %v", e, err)
	}
}

// expect reads all of j from the sequence on.
func expect(t *testing.T, j *memJournal, s *bus.EventStream, from uint64) {
	t.Helper()
	var lines [][]byte
	for _, f := range j.frames {
		lines = append(lines, bytes.Split(bytes.TrimSuffix(f.Payload, []byte("\n")), []byte("\n"))...)
	}
	for seq := from; seq <= uint64(len(lines)); seq++ {
		e, err := s.Next(within(t))
		if err != nil || e.Seq != seq || !bytes.Equal(e.Line, lines[seq-1]) {
			t.Fatalf("event %d: %d %s, %v", seq, e.Seq, e.Line, err)
		}
	}
}

// TestACopyMayBeLate: it is made when somebody waits for it, when much waits, when the
// time has come, and before the end.
func TestACopyMayBeLate(t *testing.T) {
	cfg, j := testConfig(t), &memJournal{}
	cfg.CopyLate = time.Hour
	s, p, _ := openStream(t, cfg, j)
	p.Publish(j.add(3, "c1", "container.created"))
	time.Sleep(5 * copyRest)
	if n := p.Copied(); n != 0 {
		t.Fatalf("copied to %d at once", n)
	}
	copied(t, s, p, j)
	for range lateFrames + 10 {
		p.Publish(j.add(1, "c1", "container.started"))
	}
	for begun := time.Now(); p.Copied() < lateFrames; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("so many wait, and nothing is copied")
		}
	}
	p.Publish(j.add(2, "c1", "container.exited"))
	head, _ := j.Head()
	p.closeWithin = 20 * time.Second
	s.Close()
	s, _, report := openStream(t, cfg, j)
	if report.Last != head {
		t.Errorf("at the end the stream had %d of %d", report.Last, head)
	}
	s.Close() // before, so that it copies none of what follows
	for range lateFrames + 1 {
		j.add(1, "c1", "container.started")
	}
	s, p, _ = openStream(t, cfg, j)
	head, _ = j.Head()
	for begun := time.Now(); p.Copied() < head; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("the stream is far behind, and nothing is copied")
		}
	}
	s.Close()
	cfg.CopyLate = 50 * time.Millisecond
	s, p, _ = openStream(t, cfg, j)
	p.Publish(j.add(2, "c1", "container.removed"))
	head, _ = j.Head()
	for begun := time.Now(); p.Copied() < head; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("the time has come, and nothing is copied")
		}
	}
	copied(t, s, p, j)
}

func TestPublishNeverWaits(t *testing.T) {
	j, block := &memJournal{text: strings.Repeat("x", 1<<20)}, make(chan struct{})
	stuck := func(name string) *tailer {
		tl := newTailer(name, j, slog.New(slog.DiscardHandler), 1)
		tl.emit = func(context.Context, bus.Frame) error { <-block; return nil }
		return tl
	}
	p := &Publisher{live: stuck("listeners"), replica: stuck("stream")}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.live.run(ctx) })
	wg.Go(func() { p.replica.run(ctx) })
	var frames []bus.Frame
	for range 64 {
		frames = append(frames, j.add(1, "c1", "container.created"))
	}
	begin := time.Now()
	p.Publish(frames...)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%d frames took %s", len(frames), took)
	}
	for _, tl := range []*tailer{p.live, p.replica} {
		if n := tl.queued.Load(); n == 0 || n > tailBytes {
			t.Errorf("%d bytes wait for the %s", n, tl.name)
		}
	}
	cancel()
	close(block)
	wg.Wait()
}

// TestTailerGoesOnWhereItWas: what did not fit, and what could not be taken, is
// read from the journal; each event is taken once, in order.
func TestTailerGoesOnWhereItWas(t *testing.T) {
	j, taken := &memJournal{}, make(chan uint64, 10_000)
	tl := newTailer("test", j, slog.New(slog.DiscardHandler), 1)
	refuse := 3
	tl.emit = func(_ context.Context, f bus.Frame) error {
		if f.First == 50 && refuse > 0 {
			refuse--
			return errdefs.ErrUnavailable
		}
		taken <- f.First
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 * tailFrames {
		tl.offer(j.add(1, "c1", "container.created"))
	}
	wg.Go(func() { tl.run(ctx) })
	for want := uint64(1); want <= 2*tailFrames; want++ {
		select {
		case got := <-taken:
			if got != want {
				t.Fatalf("took %d, want %d", got, want)
			}
		case <-within(t).Done():
			t.Fatalf("event %d is not taken", want)
		}
	}
	cancel()
	wg.Wait()
}

// TestTheLongestEventIsInThePast: an answer has room for any event, whatever is in it.
func TestTheLongestEventIsInThePast(t *testing.T) {
	j := &memJournal{}
	s, p, _ := openStream(t, testConfig(t), j)
	if err := s.Serve(echo()); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.ControlSocket())
	for _, text := range []string{"", strings.Repeat("x", 2<<20-300), strings.Repeat(`\"`, (bus.MaxEvent-300)/2), ""} {
		j.text = text
		p.Publish(j.add(1, "c1", "container.created"))
	}
	events, err := c.Events(within(t), 1, bus.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	for seq := range uint64(4) {
		if e, err := events.Next(within(t)); err != nil || e.Seq != seq+1 {
			t.Fatalf("event %d: %d, %v", seq+1, e.Seq, err)
		}
	}
}
