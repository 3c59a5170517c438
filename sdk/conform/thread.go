package conform

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread calls f on a thread of its own, which ends with it, and waits: f
// may move its thread into other namespaces. It is never the process's first
// thread, since that one cannot end and its namespaces are what /proc/self
// shows.
func OnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			OnThread(f) // elsewhere: this goroutine keeps the first thread meanwhile
			runtime.UnlockOSThread()
			return
		}
		f() // not unlocked: Go ends the thread with the goroutine
	}()
	<-done
}
