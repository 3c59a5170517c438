package main

import (
	"fmt"
	"slices"
	"time"
)

// sample is one measured duration, and whether the machine was quiet meanwhile.
type sample struct {
	took  time.Duration
	quiet bool
}

// stats tell about samples of one thing.
type stats struct {
	n, all      int // quiet ones, and all
	min, median time.Duration
	p90         time.Duration
	modes       []mode // two, where the samples fall into two groups
	allMedian   time.Duration
}

// mode is one group of samples.
type mode struct {
	median time.Duration
	n      int
}

// statsOf sums samples up: the quiet ones, or all if too few were.
func statsOf(samples []sample) stats {
	var quiet, all []time.Duration
	for _, s := range samples {
		all = append(all, s.took)
		if s.quiet {
			quiet = append(quiet, s.took)
		}
	}
	if len(all) == 0 {
		return stats{}
	}
	slices.Sort(all)
	st := stats{n: len(quiet), all: len(all), allMedian: middle(all)}
	if len(quiet) < 5 {
		quiet, st.n = all, 0
	}
	slices.Sort(quiet)
	st.min, st.median, st.p90 = quiet[0], middle(quiet), quiet[len(quiet)*9/10]
	st.modes = modesOf(quiet)
	return st
}

func middle(sorted []time.Duration) time.Duration {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// modesOf cuts sorted samples where that explains most of their variance (Otsu's
// criterion). They have two modes if it explains four fifths, neither group is
// smaller than a tenth, and the groups' medians are a quarter apart.
func modesOf(sorted []time.Duration) []mode {
	n := len(sorted)
	if n < 10 {
		return nil
	}
	total, square := 0.0, 0.0
	for _, d := range sorted {
		total += float64(d)
		square += float64(d) * float64(d)
	}
	variance := square/float64(n) - (total/float64(n))*(total/float64(n))
	best, cut, below := 0.0, 0, 0.0
	for i := 1; i < n; i++ {
		below += float64(sorted[i-1])
		left, right := below/float64(i), (total-below)/float64(n-i)
		between := float64(i) * float64(n-i) / float64(n) / float64(n) * (right - left) * (right - left)
		if between > best {
			best, cut = between, i
		}
	}
	if variance <= 0 || best/variance < 0.8 || min(cut, n-cut) < max(2, n/10) {
		return nil
	}
	low, high := middle(sorted[:cut]), middle(sorted[cut:])
	if float64(high) < 1.25*float64(low) {
		return nil
	}
	return []mode{{low, cut}, {high, n - cut}}
}

// String is the line of numbers of the report.
func (s stats) String() string {
	if s.all == 0 {
		return "no samples"
	}
	text := fmt.Sprintf("min %s, median %s, p90 %s", ms(s.min), ms(s.median), ms(s.p90))
	if len(s.modes) == 2 {
		text += fmt.Sprintf(", modes %s (%d) and %s (%d)", ms(s.modes[0].median), s.modes[0].n, ms(s.modes[1].median), s.modes[1].n)
	} else {
		text += ", one mode"
	}
	if s.n == 0 {
		return text + fmt.Sprintf(" (%d samples, none quiet)", s.all)
	}
	return text + fmt.Sprintf(" (%d quiet of %d samples)", s.n, s.all)
}

// ms is a duration in milliseconds, to what can be told.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	if v < 10 && v > -10 {
		return fmt.Sprintf("%.2f ms", v)
	}
	return fmt.Sprintf("%.1f ms", v)
}

// ratio is a by b; 0 if b is none.
func ratio(a, b time.Duration) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// middleOf is the median of values.
func middleOf(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
