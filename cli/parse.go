package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// parseBytes reads a size as Docker's users write it: a number and, if any, one
// of k, m, g, t, p (1024 each), with an i and a b behind it or not.
func parseBytes(s string) (int64, error) {
	const units = "kmgtp"
	rest := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "b")
	factor := 1.0
	if short := strings.TrimSuffix(rest, "i"); short != "" {
		if n := strings.IndexByte(units, short[len(short)-1]); n >= 0 {
			factor, rest = math.Pow(1024, float64(n+1)), strings.TrimSpace(short[:len(short)-1])
		}
	}
	if !digits(strings.Replace(rest, ".", "", 1)) {
		return 0, fmt.Errorf("%q is no size: want a number and one of b, k, m, g", s)
	}
	if n, err := strconv.ParseInt(rest, 10, 64); err == nil && factor == 1 {
		return n, nil
	}
	f, err := strconv.ParseFloat(rest, 64)
	if err != nil || f*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is no size: want a number and one of b, k, m, g", s)
	}
	return int64(f * factor), nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseCPUs reads a number of processors in units of 1e-9, exactly.
func parseCPUs(s string) (int64, error) {
	whole, part, _ := strings.Cut(s, ".")
	if !digits(whole + part) {
		return 0, fmt.Errorf("%q is no number of processors: want e.g. 1.5", s)
	}
	if len(part) > 9 {
		return 0, fmt.Errorf("%q processors: at most 9 digits behind the point", s)
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", 9-len(part)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q processors are too many", s)
	}
	return n, nil
}

// sigRTMin is the first real-time signal that programs may use (glibc).
const sigRTMin, sigMax = 34, 64

// parseSignal reads a signal's name, with or without SIG, or its number.
func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigMax {
			return 0, fmt.Errorf("signal %d is not between 1 and %d", n, sigMax)
		}
		return n, nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	for base, from := range map[string]int{"SIGRTMIN": sigRTMin, "SIGRTMAX": sigMax} {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if n := from + offset; n >= sigRTMin && n <= sigMax {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%q is no signal", s)
}

// signalName is a signal's name, or its number.
func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(n)
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// parseTime reads a moment: RFC 3339 with or without parts of it, seconds since
// 1970, or how long ago, as a duration.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && s != "0" { // 0 is a moment: the first
		return now.Add(-d), nil
	}
	if whole, part, _ := strings.Cut(s, "."); digits(whole) && (part == "" || digits(part)) && len(part) <= 9 {
		sec, err := strconv.ParseInt(whole, 10, 64)
		nano, err2 := strconv.ParseInt(part+strings.Repeat("0", 9-len(part)), 10, 64)
		if err == nil && err2 == nil {
			return time.Unix(sec, nano), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := time.ParseInLocation("15:04:05.999999999", s, now.Location()); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: want 2006-01-02T15:04:05Z, 15:04:05, seconds since 1970, or how long ago, e.g. 10m", s)
}
