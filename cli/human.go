package cli

import (
	"fmt"
	"strings"
	"time"
)

// humanTime is how long something takes, as Docker says it.
func humanTime(d time.Duration) string {
	const day = 24 * time.Hour
	switch s := int(d.Seconds()); {
	case s < 1:
		return "Less than a second"
	case s == 1:
		return "1 second"
	case s < 60:
		return fmt.Sprintf("%d seconds", s)
	case s < 120:
		return "About a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes", s/60)
	case d.Hours() < 1.5:
		return "About an hour"
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()+0.5))
	case d < 14*day:
		return fmt.Sprintf("%d days", d/day)
	case d < 60*day:
		return fmt.Sprintf("%d weeks", d/(7*day))
	case d < 730*day:
		return fmt.Sprintf("%d months", d/(30*day))
	}
	return fmt.Sprintf("%d years", d/(365*day))
}

// ago is how long a moment is past.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return humanTime(now.Sub(t)) + " ago"
}

// humanSize is a number of bytes in decimal units, three digits of it.
func humanSize(n int64) string {
	f, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for f >= 999.5 && unit < len(units)-1 { // three digits of more would be 1e+03
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.3g%s", f, units[unit])
}

// binarySize is a number of bytes in units of 1024, four digits of it.
func binarySize(n int64) string {
	f, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.4g%s", f, units[unit])
}

// short is the beginning of an id that is enough for people.
func short(id string) string {
	id = strings.TrimPrefix(id, digestMark)
	return id[:min(12, len(id))]
}

// clip is the beginning of s, at most n characters of it.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// took is a duration as a stopwatch shows it.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + took(-d)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2fms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0fms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// counted is a number of things.
func counted[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
