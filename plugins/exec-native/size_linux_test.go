package execnative

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/gantryd/gantry/sdk/execdriver"
)

// mostHeld is what the driver may hold for a running container, in bytes of heap
// and stacks.
const mostHeld = 10 << 10

// TestHeldOfARun: a container that runs, with its memory watched, costs the
// driver little.
func TestHeldOfARun(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go b.d.OOMs(ctx, func(execdriver.OOM) error { return nil })
	start := func() {
		r := b.request("")
		r.Process.Args = []string{"/bin/sleep", "1000"}
		if _, err := b.d.Start(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	held := func() uint64 {
		b.eventually("memory of all watched", func() bool { return b.watched() })
		b.eventually("all made ahead", b.full)
		debug.FreeOSMemory()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	start()
	before, goroutines := held(), runtime.NumGoroutine()
	const n = 40
	for range n {
		start()
	}
	after := held()
	t.Logf("%d bytes and %.1f goroutines for each", (after-before)/n, float64(runtime.NumGoroutine()-goroutines)/n)
	if (after-before)/n > mostHeld {
		t.Errorf("a run costs %d bytes, want at most %d", (after-before)/n, mostHeld)
	}
}

// watched reports whether the memory of every run is watched.
func (b *bench) watched() bool {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	for _, r := range b.d.runs {
		if r.memory == nil {
			return false
		}
	}
	return true
}
