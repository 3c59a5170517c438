package main

import (
	"context"
	"fmt"
	"io"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/bus/server"
	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/eventlog"
)

// replica gives the records of the stream that an engine keeps beside its log.
type replica func(from uint64, f func(bus.Frame) error) error

// Read calls f with the stream's records from the sequence on.
func (read replica) Read(from uint64, f func(eventlog.Record) error) error {
	return read(from, func(frame bus.Frame) error { return f(engine.RecordOf(frame)) })
}

// repair rebuilds what is damaged in the log from the stream, without an engine.
func repair(ctx context.Context, o options, out io.Writer) error {
	d := &assembly{o: o, log: o.logger()}
	defer d.close()
	unlock, err := lock(d.root("lock"), "data directory "+o.root)
	if err != nil {
		return err
	}
	d.onClose(unlock)
	d.bus, err = server.Start(server.Config{Node: "repair", Store: d.root("stream"), Run: o.run, Log: d.log})
	if err != nil {
		return err
	}
	d.onClose(d.bus.Close)
	source := replica(func(from uint64, f func(bus.Frame) error) error { return d.bus.ReadStream(ctx, from, f) })
	rebuilt, err := eventlog.Repair(ctx, d.root("log"), source)
	for _, name := range rebuilt {
		fmt.Fprintln(out, name)
	}
	return err
}
