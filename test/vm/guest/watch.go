package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// watch follows what a test program says of its tests, so that one that hangs
// does not take the others' time.
type watch struct {
	mu      sync.Mutex        // guards all below
	state   map[string]string // by test: RUN, PAUSE, CONT, PASS, FAIL, SKIP
	changed time.Time         // when a test last began, went on or ended
	rest    string            // of a line without its end
	marks   *regexp.Regexp    // the lines that -test.v=test2json marks as the program's own
}

func newWatch() *watch {
	return &watch{state: map[string]string{}, changed: time.Now(),
		marks: regexp.MustCompile(`\x16 *(?:=== |--- )(RUN|PAUSE|CONT|PASS|FAIL|SKIP):? +(\S+)`)}
}

// Write takes output as it comes; it never fails.
func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.rest + string(b)
	w.rest = ""
	if i := strings.LastIndexByte(text, '\n'); i < len(text)-1 && len(text)-i < maxSaid {
		text, w.rest = text[:i+1], text[i+1:]
	}
	for _, m := range w.marks.FindAllStringSubmatch(text, -1) {
		w.state[m[2]], w.changed = m[1], time.Now()
	}
	return len(b), nil
}

// still is how long no test has begun or ended.
func (w *watch) still() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.changed)
}

// restart is for a program that begins anew: what it had not ended it has not
// begun.
func (w *watch) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.state, func(_, s string) bool { return !over(s) })
	w.changed, w.rest = time.Now(), ""
}

// give notes the tests that were running themselves, not waiting for those
// below them, as ended: they are not tried again. It returns them.
func (w *watch) give() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	runs := func(s string) bool { return s == "RUN" || s == "CONT" }
	hung := w.lowest(runs)
	for _, name := range hung {
		w.state[name] = "CUT"
	}
	return hung
}

// ended are the tests that are not to be tried again, without those that one
// above them stands for.
func (w *watch) ended() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name, s := range w.state {
		if over(s) && !w.covered(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (w *watch) covered(name string) bool {
	for i := range len(name) {
		if name[i] == '/' && over(w.state[name[:i]]) {
			return true
		}
	}
	return false
}

// failed are the tests that failed themselves, not for one below them.
func (w *watch) failed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lowest(func(s string) bool { return s == "FAIL" })
}

// lowest are the tests of such a state that have none of it below them. The
// caller holds mu.
func (w *watch) lowest(such func(string) bool) []string {
	var all []string
	for name, s := range w.state {
		if such(s) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		return slices.ContainsFunc(all, func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
}

// over says whether a test in that state has ended.
func over(s string) bool { return s == "PASS" || s == "FAIL" || s == "SKIP" || s == "CUT" }

// pattern matches just those tests, for -test.skip and -test.run.
func pattern(names []string) string {
	var alternatives []string
	for _, name := range names {
		var parts []string
		for part := range strings.SplitSeq(name, "/") {
			parts = append(parts, "^"+regexp.QuoteMeta(part)+"$")
		}
		alternatives = append(alternatives, strings.Join(parts, "/"))
	}
	return strings.Join(alternatives, "|")
}
