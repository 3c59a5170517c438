package linux

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettle(t *testing.T) {
	for range 3 {
		if err := Settle(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSettlerWaitsForQuietAfterWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const after = time.Second
		var settled atomic.Int32
		s := NewSettler(after, 3, func() { settled.Add(1) })
		pass := func(d time.Duration, want int32, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := settled.Load(); n != want {
				t.Fatalf("settled %d times, not %d: %s", n, want, what)
			}
		}
		pass(5*after, 1, "after the start")
		s.Worked(2)
		pass(5*after, 1, "after too little work")
		for range 50 { // it adds up, and goes on
			s.Worked(1)
			pass(after/10, 1, "before the work's end")
		}
		pass(5*after, 2, "after work")
	})
}

func TestProgramText(t *testing.T) {
	for _, c := range []struct {
		line string
		ok   bool
	}{
		{"00400000-0099b000 r-xp 00000000 fe:00 12345                              /usr/bin/gantry d\n", true},
		{"0099b000-01232000 r--p 0059b000 fe:00 12345                              /usr/bin/gantry d\n", true},
		{"01232000-012a0000 rw-p 00e32000 fe:00 12345                              /usr/bin/gantry d\n", false},
		{"0099b000-01232000 r--s 0059b000 fe:00 12345                              /usr/bin/gantry d\n", false},
		{"0099b000-01232000 r--p 0059b000 fe:00 12345                              /usr/bin/other\n", false},
		{"012a0000-012f0000 rw-p 00000000 00:00 0 \n", false},
		{"7ffc0000-7ffd0000 r-xp 00000000 00:00 0                                  [vdso]\n", false},
	} {
		from, to, ok := programText(c.line, "/usr/bin/gantry d")
		if ok != c.ok {
			t.Errorf("%q: %v, want %v", c.line, ok, c.ok)
		}
		if ok && (from == 0 || to <= from) {
			t.Errorf("%q: %x-%x", c.line, from, to)
		}
	}
}
