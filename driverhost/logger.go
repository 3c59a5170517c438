package driverhost

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogger is what go-plugin logs to.
type hclogger = hclog.Logger

// hostLogger gives what go-plugin itself says to the host's log, for debugging:
// what matters of it is said by the host, and what a driver says is read by said.
func hostLogger(log *slog.Logger) hclogger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(sink{log})
	return l
}

// sink takes hclog's lines.
type sink struct{ log *slog.Logger }

// Accept is called for every line.
func (s sink) Accept(_ string, _ hclog.Level, msg string, args ...any) {
	s.log.Log(context.Background(), slog.LevelDebug, msg, args...)
}
