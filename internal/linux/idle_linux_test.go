package linux

import (
	"testing"
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
	const after = 20 * time.Millisecond
	settled := make(chan time.Time, 8)
	s := NewSettler(after, 3, func() { settled <- time.Now() })
	wait := func(what string) time.Time {
		t.Helper()
		select {
		case at := <-settled:
			return at
		case <-time.After(5 * time.Second):
			t.Fatalf("not settled after %s", what)
			return time.Time{}
		}
	}
	wait("the start")
	s.Worked(2)
	select {
	case <-settled:
		t.Error("settled after too little work")
	case <-time.After(5 * after):
	}
	last := time.Now()
	for begun := last; last.Sub(begun) < 5*after; last = time.Now() { // it adds up, and goes on
		s.Worked(1)
		time.Sleep(after / 10)
	}
	if at := wait("work"); at.Before(last) {
		t.Errorf("settled %v before the work's end", last.Sub(at))
	}
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
