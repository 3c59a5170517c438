package driver

import (
	"errors"
	"sync"
	"testing"
	"time"

	driverv1 "github.com/gantryd/gantry/api/driver/v1"
)

// Telling never waits for a slow peer; the newest word arrives; none is sent
// after stop.
func TestProgressNeverBlocks(t *testing.T) {
	gate := make(chan struct{})
	var mu sync.Mutex
	var sent []int64
	p, stop := ProgressSender(func(p *driverv1.Progress) error {
		<-gate
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, p.GetDone())
		return nil
	})
	for i := range int64(10_000) { // for ever, if it waited
		p(i, 10_000, "work")
	}
	close(gate)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		done := len(sent) > 0 && sent[len(sent)-1] == 9_999
		mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the newest word never arrived: %v", sent)
		}
	}
	stop()
	stop()
	p(1, 1, "late") // a stray goroutine of a driver: no panic, nothing sent
	if len(sent) > 3 {
		t.Errorf("%d words were sent to a stuck peer", len(sent))
	}
}

func TestProgressPeerGone(t *testing.T) {
	p, stop := ProgressSender(func(*driverv1.Progress) error { return errors.New("gone") })
	for i := range int64(100) {
		p(i, 100, "work")
	}
	stop()
}
