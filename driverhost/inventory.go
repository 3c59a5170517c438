package driverhost

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gantryd/gantry/bus"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/sdk/driver"
)

// inventory puts what a driver holds into the core's words.
func inventory(kind, name, instance string, items []driver.Item) *core.ReportInventory {
	r := &core.ReportInventory{Kind: kind, Driver: name, Instance: instance}
	for _, i := range items {
		r.Items = append(r.Items, core.Item{
			Kind: i.Kind, Key: i.Key, Run: i.Run, Exec: i.Exec, Network: i.Network, State: i.State, PID: i.PID,
		})
	}
	return r
}

// report sends what was seen until the engine has it.
func (d *hosted) report(ctx context.Context, instance string, c core.Command) error {
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode a report: %w", err)
	}
	d.host.mu.Lock()
	epoch := d.host.epoch
	d.host.mu.Unlock()
	_, err = d.host.o.Bus.Report(ctx, bus.Report{
		Epoch: epoch, Kind: d.kind, Driver: d.name, Instance: instance, Name: core.CommandName(c), Body: body,
	})
	return err
}
