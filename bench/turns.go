package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// row is one of the things that are measured in turns.
type row struct {
	name string
	// once does the thing once and says how long it took.
	once    func() (time.Duration, error)
	samples []sample
}

const (
	warmups  = 3
	gateMost = 700 * time.Millisecond // longest wait for one quiet moment
	gateLook = 12 * time.Millisecond  // how long the machine is watched for one
	gateRest = 15 * time.Millisecond  // between two samples: what the last one left has ended
)

// inTurns measures the rows in turns, each in a quiet moment if one comes, until
// each has n quiet samples or patience is at its end. The order changes from round
// to round: nobody always follows the same one.
func (r *rig) inTurns(ctx context.Context, n int, rows ...*row) error {
	for range warmups {
		for _, w := range rows {
			if _, err := w.once(); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	begun := time.Now()
	order := slices.Clone(rows)
	for round := 0; !enough(rows, n) && time.Since(begun) < r.patient && round < 10*n; round++ {
		for _, w := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(gateRest)
			r.others.gate(r.share)
			before := r.others.read()
			took, err := w.once()
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.samples = append(w.samples, sample{took, r.others.share(before, took) < r.share})
		}
		order = append(order[1:], order[0])
	}
	return nil
}

func enough(rows []*row, n int) bool {
	for _, w := range rows {
		if w.quiet() < n {
			return false
		}
	}
	return true
}

func (w *row) quiet() int {
	n := 0
	for _, s := range w.samples {
		if s.quiet {
			n++
		}
	}
	return n
}

// others knows how much processor time everybody else has used: that of the
// machine without that of our cgroups. Without such a controller it knows nothing,
// and every moment counts as quiet.
type others struct {
	whole string   // the machine's counter
	ours  []string // our cgroups' counters; those of cgroups that are not there yet count nothing
	parse func([]byte) time.Duration
}

// read is what others have used until now.
func (o *others) read() time.Duration {
	if o.whole == "" {
		return 0
	}
	used := o.counter(o.whole)
	for _, path := range o.ours {
		used -= o.counter(path)
	}
	return used
}

func (o *others) counter(path string) time.Duration {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return o.parse(data)
}

// share is how much of all processors others have used since before.
func (o *others) share(before, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(o.read()-before) / float64(took) / float64(runtime.NumCPU())
}

// gate waits for a quiet moment, but not for ever.
func (o *others) gate(share float64) {
	if o.whole == "" {
		return
	}
	for end := time.Now().Add(gateMost); time.Now().Before(end); {
		before, begun := o.read(), time.Now()
		time.Sleep(gateLook)
		if o.share(before, time.Since(begun)) < share {
			return
		}
	}
}
