package driverhost

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hostLogger gives what go-plugin and the driver say to the host's log.
func hostLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(sink{log})
	return l
}

// sink takes hclog's lines. go-plugin's own chatter is of level debug at most.
type sink struct{ log *slog.Logger }

// Accept is called for every line.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case hclog.Info:
		l = slog.LevelInfo
	case hclog.Warn:
		l = slog.LevelWarn
	case hclog.Error:
		l = slog.LevelError
	}
	s.log.Log(context.Background(), l, msg, args...)
}
