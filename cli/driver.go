package cli

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/query"
)

func (a *app) driverCmd() *cobra.Command {
	return group("driver", "The programs that touch the machine",
		a.driverLsCmd(), a.driverInspectCmd(), a.driverReplaceCmd(), a.driverTestCmd(),
		a.driverTurnCmd("enable", "Let a driver be used again", func(id string) core.Command { return &core.EnableDriver{Driver: id} }),
		a.driverTurnCmd("disable", "End a driver and let nothing use it; what runs goes on", func(id string) core.Command { return &core.DisableDriver{Driver: id} }))
}

func (a *app) driverLsCmd() *cobra.Command {
	l := listing{
		id:      "ID",
		columns: []column{{"DRIVER", "ID"}, {"STATUS", "Status"}, {"PID", "PID"}, {"VERSION", "Version"}, {"IN USE", "Chosen"}, {"STEPS", "Steps"}, {"PROGRAM", "Program"}},
		more:    []column{{"INSTANCE", "Instance"}, {"REASON", "Reason"}},
	}
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"}, Short: "List drivers", Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			var out query.Drivers
			if err := a.query(c.Context(), query.DriverList, nil, &out); err != nil {
				return err
			}
			var rows []row
			for i := range out.Drivers {
				rows = append(rows, driverRow(&out.Drivers[i]))
			}
			return l.write(a.Stdout, rows)
		},
	}
	l.register(c)
	return c
}

func driverRow(d *query.Driver) row {
	r := row{
		"ID": d.ID, "Status": driverStatus(d), "PID": "-", "Version": d.Version, "Chosen": "no",
		"Steps": strconv.Itoa(d.InFlight), "Program": d.Path, "Instance": d.Instance, "Reason": d.Reason,
	}
	if d.PID != 0 {
		r["PID"] = strconv.Itoa(d.PID)
	}
	if d.Chosen {
		r["Chosen"] = "yes"
	}
	if d.Waiting > 0 {
		r["Steps"] += fmt.Sprintf(" (+%d)", d.Waiting)
	}
	if d.Path == "" {
		r["Program"] = driverName(d.ID)
	}
	return r
}

func driverStatus(d *query.Driver) string {
	switch {
	case d.Disabled:
		return "disabled"
	case d.Next != "":
		return "being replaced"
	case d.Instance != "":
		return "running"
	case d.Reason != "":
		return "ended"
	}
	return "not started"
}

func (a *app) driverInspectCmd() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [flags] DRIVER [DRIVER...]", Short: "Show all about drivers", Args: minArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.showEach(format, args, func(ref string) (any, error) {
				var d query.DriverDetail
				err := a.query(c.Context(), query.DriverInspect, query.RefIn{Ref: ref}, &d)
				return d, err
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json, or a Go template: '{{.Version}}'")
	return c
}

// driverTurnCmd sends a command about a driver and waits for its end.
func (a *app) driverTurnCmd(name, what string, command func(id string) core.Command) *cobra.Command {
	return &cobra.Command{
		Use: name + " DRIVER", Short: what, Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.turnDriver(c, args[0], command)
		},
	}
}

func (a *app) turnDriver(c *cobra.Command, ref string, command func(id string) core.Command) error {
	r, err := a.resolve(c.Context(), core.KindDriver, ref)
	if err != nil {
		return err
	}
	if _, err := a.finish(c.Context(), command(r.ID)); err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout, r.ID)
	return nil
}

func (a *app) driverReplaceCmd() *cobra.Command {
	return &cobra.Command{
		Use: "replace DRIVER PATH", Short: "Put another program in a driver's place while containers run", Args: exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[1])
			if err != nil {
				return fmt.Errorf("replace driver: %w", err)
			}
			return a.turnDriver(c, args[0], func(id string) core.Command { return &core.SwapDriver{Driver: id, Path: path} })
		},
	}
}

func (a *app) driverTestCmd() *cobra.Command {
	return &cobra.Command{
		Use: "test [flags] PATH", Short: "Hold a driver program to the contract of its kind", DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "--help" {
				args = []string{"-h"}
			}
			return a.runProgram(c.Context(), "gantry-conform", args...)
		},
	}
}
