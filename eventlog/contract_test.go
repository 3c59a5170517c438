package eventlog_test

import (
	"math/rand/v2"
	"testing"

	"github.com/gantryd/gantry/eventlog"
	"github.com/gantryd/gantry/eventlog/faultfs"
	"github.com/gantryd/gantry/eventlog/logtest"
)

// small makes segments close often.
func small() eventlog.Options {
	return eventlog.Options{SegmentSize: 2000, Reserve: 8 << 10, Chunk: 4 << 10}
}

func TestContractMem(t *testing.T) {
	logtest.Run(t, func(t *testing.T) logtest.Opened {
		log := eventlog.NewMem()
		return logtest.Opened{Log: log, Reopen: func(*testing.T) eventlog.Log { return log }}
	})
}

func TestContractFile(t *testing.T) {
	for name, options := range map[string]eventlog.Options{"small segments": small(), "one segment": {}} {
		t.Run(name, func(t *testing.T) {
			logtest.Run(t, func(t *testing.T) logtest.Opened { return onDisk(t, options) })
		})
	}
}

func onDisk(t *testing.T, options eventlog.Options) logtest.Opened {
	dir := t.TempDir() + "/log"
	log := openDir(t, dir, options)
	return logtest.Opened{Log: log, Reopen: func(t *testing.T) eventlog.Log {
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		return openDir(t, dir, options)
	}}
}

func openDir(t testing.TB, dir string, options eventlog.Options) *eventlog.Journal {
	t.Helper()
	log, err := eventlog.Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// TestContractFaulty ends each log by a loss of power or by kill -9.
func TestContractFaulty(t *testing.T) {
	for name, after := range map[string]func(*faultfs.FS) *faultfs.FS{"power": (*faultfs.FS).Crash, "kill": (*faultfs.FS).Kill} {
		t.Run(name, func(t *testing.T) {
			logtest.Run(t, func(t *testing.T) logtest.Opened {
				files := faultfs.New(seeded(1))
				log := openFS(t, files, small())
				return logtest.Opened{Log: log, Reopen: func(t *testing.T) eventlog.Log {
					return openFS(t, after(files), small())
				}}
			})
		})
	}
}

func openFS(t testing.TB, files eventlog.FS, options eventlog.Options) *eventlog.Journal {
	t.Helper()
	log, err := eventlog.OpenFS(files, options)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func seeded(seed uint64) func(int) int {
	return rand.New(rand.NewPCG(seed, 1)).IntN
}
