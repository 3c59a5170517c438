package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/core"
)

// healthFlags are those about probing the container's health.
type healthFlags struct {
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

func (f *healthFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.command, "health-cmd", "", "command line that says by its exit code whether the container is healthy")
	p.DurationVar(&f.interval, "health-interval", 0, "time between two probes (default 30s)")
	p.DurationVar(&f.timeout, "health-timeout", 0, "time that a probe may take (default 30s)")
	p.IntVar(&f.retries, "health-retries", 0, "failures in a row that make it unhealthy (default 3)")
	p.DurationVar(&f.startPeriod, "health-start-period", 0, "time at the beginning in which failures do not count")
	p.DurationVar(&f.startInterval, "health-start-interval", 0, "time between two probes in it (default 5s)")
	p.BoolVar(&f.none, "no-healthcheck", false, "do not probe, whatever the image says")
}

// read gives nil where nothing is asked for: the image's word holds.
func (f *healthFlags) read(flags *pflag.FlagSet) (*core.Health, error) {
	some := f.command != ""
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"health-interval", f.interval}, {"health-timeout", f.timeout}, {"health-start-period", f.startPeriod},
		{"health-start-interval", f.startInterval}, {"health-retries", time.Duration(f.retries)},
	} {
		if d.value < 0 {
			return nil, fmt.Errorf("--%s cannot be negative", d.flag)
		}
		if d.value > 0 && d.flag != "health-retries" && d.value < time.Millisecond {
			return nil, fmt.Errorf("--%s cannot be less than 1ms", d.flag)
		}
		some = some || flags.Changed(d.flag)
	}
	switch {
	case f.none && some:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case f.none:
		return &core.Health{Test: []string{"NONE"}}, nil
	case !some:
		return nil, nil
	}
	h := &core.Health{
		Interval: f.interval, Timeout: f.timeout, StartPeriod: f.startPeriod, StartInterval: f.startInterval, Retries: f.retries,
	}
	if f.command != "" {
		h.Test = []string{"CMD-SHELL", f.command}
	}
	return h, nil
}

// restartFlags are those about starting again.
type restartFlags struct {
	policy    string
	unhealthy bool
}

func (f *restartFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.policy, "restart", "", "start it again when it has ended: no, on-failure[:MOST], always, unless-stopped (default no)")
	p.BoolVar(&f.unhealthy, "restart-unhealthy", false, "stop it and start it again when it is unhealthy")
}

func (f *restartFlags) read() (core.Restart, error) {
	r := core.Restart{Unhealthy: f.unhealthy}
	policy, most, counted := strings.Cut(f.policy, ":")
	switch {
	case policy == "on-failure" && counted:
		n, err := strconv.Atoi(most)
		if err != nil {
			return r, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		if n < 0 {
			return r, errors.New("invalid restart policy: maximum retry count cannot be negative")
		}
		r.Max = n
	case counted:
		return r, fmt.Errorf("invalid restart policy: maximum retry count cannot be used with restart policy '%s'", policy)
	}
	switch policy {
	case "", "no":
	case "on-failure", "always", "unless-stopped":
		r.Policy = policy
	default:
		return r, fmt.Errorf("invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", policy)
	}
	return r, nil
}

// loggingFlags are those about how output is kept.
type loggingFlags struct {
	driver  string
	options []string
}

func (f *loggingFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.driver, "log-driver", "", "how output is kept: local, json-file (the same) or none")
	listVar(p, &f.options, "log-opt", "max-size=20m, max-file=5, max-age=24h, mode=non-blocking, max-buffer-size=1m")
}

func (f *loggingFlags) read() (core.Logging, error) {
	l := core.Logging{Driver: f.driver}
	for _, opt := range f.options {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			return l, fmt.Errorf("log option %q: want NAME=value", opt)
		}
		if err := logOption(&l, name, value); err != nil {
			return l, fmt.Errorf("log option %q: %w", opt, err)
		}
	}
	switch {
	case l.Driver == "none" && len(f.options) > 0:
		return l, errors.New("log options need a log: the log driver is none")
	case l.MaxBufferBytes > 0 && !l.NonBlocking:
		return l, errors.New("log option max-buffer-size needs mode=non-blocking")
	}
	return l, nil
}

func logOption(l *core.Logging, name, value string) error {
	var err error
	switch name {
	case "max-size":
		if value == "-1" {
			return errors.New("a log without a bound is not supported: name a size")
		}
		if l.MaxBytes, err = parseBytes(value); err == nil && l.MaxBytes == 0 {
			err = errors.New("want more than nothing")
		}
	case "max-file":
		if l.MaxFiles, err = strconv.Atoi(value); err != nil || l.MaxFiles < 1 {
			err = errors.New("want a number of files, 1 or more")
		}
	case "max-age":
		if l.MaxAge, err = time.ParseDuration(value); err == nil && l.MaxAge <= 0 {
			err = errors.New("want a time, e.g. 24h")
		}
	case "max-buffer-size":
		if l.MaxBufferBytes, err = parseBytes(value); err == nil && l.MaxBufferBytes == 0 {
			err = errors.New("want more than nothing")
		}
	case "mode":
		switch value {
		case "blocking":
			l.NonBlocking = false
		case "non-blocking":
			l.NonBlocking = true
		default:
			err = errors.New("want blocking or non-blocking")
		}
	case "compress":
		if value != "false" {
			err = errors.New("compressed logs are not supported yet")
		}
	default:
		err = errors.New("it is not supported yet")
	}
	return err
}
