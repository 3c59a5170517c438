package main

import (
	"slices"
	"strings"
	"testing"
)

// TestWatch: who hangs is given up, who waits for it is not, and what has ended
// does not run again.
func TestWatch(t *testing.T) {
	w := newWatch()
	for _, line := range []string{
		"=== RUN   TestA", "--- PASS: TestA (0.00s)", "=== RUN   TestB", "=== RUN   TestB/ended", "    --- FAIL: TestB/ended (0.10s)",
		"=== RUN   TestB/waits", "=== PAUSE TestB/waits", "=== RUN   TestB/hangs", "=== PAUSE TestB/hangs", "=== CONT  TestB/hangs",
	} {
		// A mark may come in the middle of a line, and in two pieces.
		text := "words\x16" + line + "\n"
		for _, part := range []string{text[:len(text)/2], text[len(text)/2:]} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := w.give(); !slices.Equal(got, []string{"TestB/hangs"}) {
		t.Fatalf("given up: %v", got)
	}
	if got := w.ended(); !slices.Equal(got, []string{"TestA", "TestB/ended", "TestB/hangs"}) {
		t.Errorf("ended: %v", got)
	}
	if got := w.failed(); !slices.Equal(got, []string{"TestB/ended"}) {
		t.Errorf("failed: %v", got)
	}
	w.restart()
	if got := w.give(); len(got) != 0 {
		t.Errorf("begun before the restart: %v", got)
	}
	_, _ = w.Write([]byte("\x16=== RUN   TestB\n"))
	if got := w.give(); !slices.Equal(got, []string{"TestB"}) {
		t.Errorf("given up itself: %v", got)
	}
	if got := w.ended(); !slices.Equal(got, []string{"TestA", "TestB"}) {
		t.Errorf("one above stands for those below: %v", got)
	}
}

func TestPattern(t *testing.T) {
	got := pattern([]string{"TestA", "TestB/a.b/c"})
	if want := `^TestA$|^TestB$/^a\.b$/^c$`; got != want || strings.Contains(pattern(nil), "|") {
		t.Errorf("%q, want %q", got, want)
	}
}
