package conform

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Result is how one part of a run went.
type Result struct {
	Name     string
	Failed   bool
	Messages []string // faults, in order
	Notes    []string // what may help to understand them
	Took     time.Duration
	Parts    []*Result
}

// Record runs f outside of go test and returns how it went. watch, if not nil,
// is called at the end of every part that has no parts of its own. A part that
// does not end in twice Patience counts as failed and is left behind.
func Record(name string, watch func(*Result), f func(T)) *Result {
	r := &recorder{result: &Result{Name: name}, watch: watch}
	r.do(f)
	return r.result
}

// recorder is the T behind Record.
type recorder struct {
	watch func(*Result)

	mu       sync.Mutex // guards what follows
	result   *Result
	cleanups []func()
	parent   bool // has parts, and waits for them
	closed   bool // the part was given up: what still comes is dropped
}

// Run runs f as a part.
func (r *recorder) Run(name string, f func(T)) bool {
	sub := &recorder{result: &Result{Name: name}, watch: r.watch}
	r.mu.Lock()
	r.parent = true
	r.mu.Unlock()
	sub.do(f)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Parts = append(r.result.Parts, sub.result)
	r.result.Failed = r.result.Failed || sub.result.Failed
	return !sub.result.Failed
}

// do runs f to its end in a goroutine of its own, which Fatalf ends.
func (r *recorder) do(f func(T)) {
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.cleanUp()
		r.guard(func() { f(r) })
	}()
	r.wait(done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.result.Took = time.Since(start)
	if r.watch != nil && len(r.result.Parts) == 0 {
		r.watch(r.result)
	}
}

// wait waits for the part's end. A part with parts waits for these, each of
// which is bounded; any other one is given up after twice Patience.
func (r *recorder) wait(done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-time.After(2 * Patience):
	}
	r.mu.Lock()
	parent := r.parent
	r.mu.Unlock()
	if parent {
		<-done
		return
	}
	r.Errorf("no end after %v: the driver hangs", 2*Patience)
}

// guard runs f; a panic is a fault like any other.
func (r *recorder) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			r.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	f()
}

func (r *recorder) cleanUp() {
	for {
		r.mu.Lock()
		if len(r.cleanups) == 0 {
			r.mu.Unlock()
			return
		}
		f := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.mu.Unlock()
		ended := make(chan struct{})
		go func() { // of its own, since it may call Fatalf
			defer close(ended)
			r.guard(f)
		}()
		<-ended
	}
}

// Errorf notes a fault.
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.result.Failed = true
	r.result.Messages = append(r.result.Messages, fmt.Sprintf(format, args...))
}

// Fatalf notes a fault and ends the part.
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Logf notes what may help.
func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.result.Notes = append(r.result.Notes, fmt.Sprintf(format, args...))
	}
}

// TempDir makes a directory.
func (r *recorder) TempDir() string { return tempDir(r) }

// Cleanup calls f at the end.
func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// Helper is of no meaning here: reports have no line numbers.
func (r *recorder) Helper() {}
