package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/eventlog"
)

// story plays a life with everything in it and gives the log's records.
func story(t *testing.T) []eventlog.Record {
	w := newWorld(t)
	w.open()
	w.image()
	w.say("network.create", core.NewNetwork{ID: core.NetworkID(hexOf(77)), Name: "web"})
	w.settle()
	w.say("container.create", create(1, "one", core.Running, core.Env{Name: "A", Value: "b"}))
	w.say("container.create", create(2, "two", core.Running))
	w.settle()
	w.exit(1, 1, 3)
	w.say("container.stop", core.StopContainer{ID: core.ContainerID(hexOf(2))})
	w.settle()
	w.exit(2, 1, 143)
	w.settle()
	w.say("container.start", core.StartContainer{ID: core.ContainerID(hexOf(1))})
	w.settle()
	w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(1)), Force: true})
	w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(2))})
	w.settle()
	w.exit(1, 2, 137)
	w.settle()
	w.atRest()
	var records []eventlog.Record
	if err := w.log.Read(1, func(r eventlog.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return records
}

// After each record of a story the engine starts anew over what there is, and
// comes to rest: everything is removable, nothing stays owed.
func TestRestartAtEveryPrefix(t *testing.T) {
	records := story(t)
	for n := range len(records) + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			w.jobs = 1000
			if err := w.log.Restore(records[:n]); err != nil {
				t.Fatal(err)
			}
			if n > 0 && n < len(records) && n%2 == 0 {
				w.boot = "boot-2" // every second time the machine was restarted
			}
			w.open()
			w.settle()
			w.atRest()
			if n >= 3 && n%3 == 0 {
				if _, err := Snapshot(w.log); err != nil {
					t.Fatal(err)
				}
			}
			w.open()
			for _, c := range w.e.durable.Containers {
				w.say("container.remove", core.RemoveContainer{ID: c.ID, Force: true})
			}
			w.settle()
			for _, c := range w.e.durable.Containers {
				if c.Running() {
					w.host.report("exec", "native", "container.report-exit",
						core.ReportExit{Container: c.ID, Run: c.Process.Run, Code: 137})
				}
			}
			w.settle()
			if n := len(w.e.durable.Containers); n != 0 {
				t.Errorf("%d containers are left", n)
			}
			if steps := w.e.durable.Owed(); len(steps) != 0 {
				t.Errorf("%d steps stay owed, the first is %s", len(steps), steps[0].ID())
			}
			w.atRest()
		})
	}
}

func TestFoldOfAllIsSnapshotAndRest(t *testing.T) {
	records := story(t)
	for n := range records {
		log := eventlog.NewMem()
		if err := log.Restore(records[:n+1]); err != nil {
			t.Fatal(err)
		}
		if _, err := Snapshot(log); err != nil {
			t.Fatal(err)
		}
		if err := log.Restore(records[n+1:]); err != nil {
			t.Fatal(err)
		}
		with, err := Fold(log)
		if err != nil {
			t.Fatal(err)
		}
		bare := eventlog.NewMem()
		if err := bare.Restore(records); err != nil {
			t.Fatal(err)
		}
		without, err := Fold(bare)
		if err != nil {
			t.Fatal(err)
		}
		if with.Hash() != without.Hash() {
			t.Fatalf("with a snapshot after record %d the fold differs", n)
		}
	}
}

// longLog is a log of at least n events of ordinary life.
func longLog(tb testing.TB, n uint64) *eventlog.Mem {
	w := newWorld(&testing.T{})
	log := eventlog.NewMem()
	w.log = log
	w.open()
	w.image()
	for i := 1; log.Head().Seq < n; i++ {
		for k := range 20 {
			w.say("container.create", create(i*100+k, fmt.Sprintf("c%d-%d", i, k), core.Running))
		}
		w.settle()
		for k := range 20 {
			w.exit(i*100+k, 1, 0)
		}
		w.settle()
		for k := range 20 {
			w.say("container.remove", core.RemoveContainer{ID: core.ContainerID(hexOf(i*100 + k))})
		}
		w.settle()
		w.host.sent = nil
		w.now = w.now.Add(10 * time.Minute)
	}
	return log
}

func BenchmarkFold(b *testing.B) {
	log := longLog(b, 30_000)
	n := log.Head().Seq
	b.ResetTimer()
	for range b.N {
		if _, err := Fold(log); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkTurn(b *testing.B) {
	w := newWorld(&testing.T{})
	w.open()
	b.ResetTimer()
	for range b.N {
		w.say("driver.enable", core.EnableDriver{Driver: "net/x"})
		if err := w.e.Turn(); err != nil {
			b.Fatal(err)
		}
	}
}

// A log of many events behind a snapshot, and 10,000 after it, on a disk.
func BenchmarkOpenBehindASnapshot(b *testing.B) {
	dir := b.TempDir() + "/log"
	mem := longLog(b, 120_000)
	journal, err := eventlog.Open(dir, eventlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var frames []eventlog.Frame
	flush := func() {
		if _, err := journal.Append(frames); err != nil {
			b.Fatal(err)
		}
		frames = nil
	}
	kept := false
	if err := mem.Read(1, func(r eventlog.Record) error {
		frames = append(frames, eventlog.Frame{First: r.First, Count: r.Count, Time: r.Time, Schema: r.Schema, Payload: r.Payload})
		if len(frames) == 1000 {
			flush()
		}
		if r.Last() >= 110_000 && !kept {
			kept = true
			flush()
			if _, err := Snapshot(journal); err != nil {
				b.Fatal(err)
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	flush()
	b.ResetTimer()
	for range b.N {
		if err := journal.Close(); err != nil {
			b.Fatal(err)
		}
		if journal, err = eventlog.Open(dir, eventlog.Options{}); err != nil {
			b.Fatal(err)
		}
		if _, err := Fold(journal); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(journal.Head().Seq), "events")
	if err := journal.Close(); err != nil {
		b.Fatal(err)
	}
}
