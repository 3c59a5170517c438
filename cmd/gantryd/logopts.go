package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/core"
)

// logDriver reads the engine-wide log driver.
func logDriver(name string, l *core.Logging) error {
	switch name {
	case "", "local", "json-file", "none":
		l.Driver = name
		return nil
	}
	return fmt.Errorf("log driver %q is not supported: use local, json-file or none", name)
}

// logOption reads one engine-wide log option, in Docker's words.
func logOption(text string, l *core.Logging) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("log option %q: use NAME=VALUE", text)
	}
	var err error
	switch name {
	case "max-size":
		l.MaxBytes, err = size(value)
	case "max-file":
		l.MaxFiles, err = strconv.Atoi(value)
		if err == nil && l.MaxFiles < 1 {
			err = fmt.Errorf("use 1 or more")
		}
	case "max-age":
		l.MaxAge, err = time.ParseDuration(value)
		if err == nil && l.MaxAge <= 0 {
			err = fmt.Errorf("use a positive duration")
		}
	case "max-buffer-size":
		l.MaxBufferBytes, err = size(value)
	case "mode":
		l.NonBlocking = value == "non-blocking"
		if value != "blocking" && value != "non-blocking" {
			err = fmt.Errorf("use blocking or non-blocking")
		}
	default:
		return fmt.Errorf("log option %q is not known: use max-size, max-file, max-age, mode or max-buffer-size", name)
	}
	if err != nil {
		return fmt.Errorf("log option %s=%s: %w", name, value, err)
	}
	return nil
}

// size reads bytes: "512", "64k", "10m", "1g".
func size(text string) (int64, error) {
	number := strings.TrimRight(strings.ToLower(text), "bi")
	shift := 0
	if n := len(number); n > 0 {
		switch number[n-1] {
		case 'k':
			shift = 10
		case 'm':
			shift = 20
		case 'g':
			shift = 30
		}
		if shift > 0 {
			number = number[:n-1]
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("use a size as 10m or 512k")
	}
	return n << shift, nil
}
