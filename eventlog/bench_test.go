package eventlog_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryd/gantry/eventlog"
	"golang.org/x/sys/unix"
)

// benchPayload makes a record of 330 bytes, about one event.
func benchPayload() []byte {
	return append(append([]byte(`{"text":"`), bytes.Repeat([]byte("x"), 330-76-12)...), "\"}\n"...)
}

func benchFrame() eventlog.Frame {
	return eventlog.Frame{Count: 1, Time: time.Unix(1_700_000_000, 0), Schema: 1, Payload: benchPayload()}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// bareFile is what a durable write is measured against: a file that grows, and
// write and fdatasync of the same size.
func bareFile(tb testing.TB) func() {
	f, err := os.Create(filepath.Join(tb.TempDir(), "bare"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	b := bytes.Repeat([]byte("x"), 330)
	return func() {
		if _, err := f.Write(b); err != nil {
			tb.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkAppend interleaves durable appends with bare fdatasyncs. The goal is a
// median of at most 1.5 times the bare one.
func BenchmarkAppend(b *testing.B) {
	log := openDir(b, b.TempDir()+"/log", eventlog.Options{})
	bare, frame := bareFile(b), []eventlog.Frame{benchFrame()}
	var ours, theirs []time.Duration
	for b.Loop() {
		start := time.Now()
		bare()
		middle := time.Now()
		if _, err := log.Append(frame); err != nil {
			b.Fatal(err)
		}
		theirs, ours = append(theirs, middle.Sub(start)), append(ours, time.Since(middle))
	}
	mine, other := median(ours), median(theirs)
	b.ReportMetric(float64(mine.Nanoseconds()), "append-median-ns")
	b.ReportMetric(float64(other.Nanoseconds()), "bare-median-ns")
	b.ReportMetric(float64(mine)/float64(other), "ratio")
}

// committer is the smallest group commit: whoever waits while one batch is being
// written is in the next one.
type committer struct {
	log   *eventlog.Journal
	queue chan request
}

type request struct {
	frame eventlog.Frame
	done  chan error
}

func (c *committer) run() {
	for first := range c.queue {
		batch, waiting := []eventlog.Frame{first.frame}, []request{first}
		for len(c.queue) > 0 && len(batch) < 256 {
			next := <-c.queue
			batch, waiting = append(batch, next.frame), append(waiting, next)
		}
		_, err := c.log.Append(batch)
		for _, r := range waiting {
			r.done <- err
		}
	}
}

// BenchmarkGroupCommit has 16 writers behind a committer, in turns with bare
// fdatasyncs of one writer. The goal is at least 1.5 times as many a second.
func BenchmarkGroupCommit(b *testing.B) {
	log := openDir(b, b.TempDir()+"/log", eventlog.Options{})
	c := &committer{log: log, queue: make(chan request, 64)}
	go c.run()
	defer close(c.queue)
	bare := bareFile(b)
	var ours, theirs int64
	const slice = 100 * time.Millisecond
	for b.Loop() {
		for start := time.Now(); time.Since(start) < slice; theirs++ {
			bare()
		}
		ours += write16(b, c, slice)
	}
	b.ReportMetric(float64(ours)/float64(b.N)/slice.Seconds(), "appends/s")
	b.ReportMetric(float64(theirs)/float64(b.N)/slice.Seconds(), "bare/s")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

func write16(b *testing.B, c *committer, slice time.Duration) int64 {
	var count atomic.Int64
	var writers sync.WaitGroup
	deadline := time.Now().Add(slice)
	for range 16 {
		writers.Go(func() {
			r := request{benchFrame(), make(chan error, 1)}
			for time.Now().Before(deadline) {
				c.queue <- r
				if err := <-r.done; err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	writers.Wait()
	return count.Load()
}

// BenchmarkScan reads a million small records with checksums and hash chain.
// The goal is 800,000 a second.
func BenchmarkScan(b *testing.B) {
	dir := b.TempDir() + "/log"
	log := openDir(b, dir, eventlog.Options{})
	const records = 200_000
	batch := make([]eventlog.Frame, 10_000)
	for i := range batch {
		batch[i] = benchFrame()
	}
	for range records / len(batch) {
		if _, err := log.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	start, count := time.Now(), 0
	for b.Loop() {
		if err := log.Read(1, func(eventlog.Record) error { count++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(count)/time.Since(start).Seconds(), "records/s")
}

// BenchmarkOpen opens a log whose last segment is nearly full.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir() + "/log"
	log := openDir(b, dir, eventlog.Options{})
	batch := make([]eventlog.Frame, 10_000)
	for i := range batch {
		batch[i] = benchFrame()
	}
	for range 19 { // 60 MiB
		if _, err := log.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := log.Append(batch[:1]); err != nil {
		b.Fatal(err)
	}
	log.Close()
	for b.Loop() {
		log, err := eventlog.Open(dir, eventlog.Options{})
		if err != nil {
			b.Fatal(err)
		}
		log.Close()
	}
}
