package driverhost

import (
	"context"
	"testing"
	"time"
)

// TestADrainThatWasGivenUp: a replacement has not waited any longer for a long step,
// and has failed; the instance serves on. That the step ends and another one begins at
// once is nobody's affair any more.
func TestADrainThatWasGivenUp(t *testing.T) {
	p := &process{launch: &launch{ended: make(chan struct{})}}
	p.calls.begin()
	for range 50 {
		p.drain(context.Background(), time.Millisecond)
		p.calls.end()
		p.calls.begin()
	}
	before := p.calls.ended()
	p.calls.begin()
	p.calls.end()
	select {
	case <-before:
		t.Fatal("one still runs")
	default:
	}
	p.calls.end()
	<-before
	p.drain(context.Background(), time.Hour) // nothing to wait for
}
